-- What XINFO answers as names and values in turn, as a table.
local function fields_of(list)
    local fields = {}
    for i = 1, #list, 2 do fields[list[i]] = list[i + 1] end
    return fields
end
