-- Ids of entries, as Redis orders them: of decimals without leading zeros the longer is greater.
local function id_after(a, b)
    local a_ms, a_seq = string.match(a, '^(%d+)-(%d+)$')
    local b_ms, b_seq = string.match(b, '^(%d+)-(%d+)$')
    if a_ms ~= b_ms then
        if #a_ms ~= #b_ms then return #a_ms > #b_ms end
        return a_ms > b_ms
    end
    if #a_seq ~= #b_seq then return #a_seq > #b_seq end
    return a_seq > b_seq
end
