#!lua flags=no-writes
-- Reads fields of many hashes in one step.
--
-- ARGV[1]: msgpack flat array {key, field, ...}. Reply: the values in order; false where absent,
-- {type} where the key is no hash, {false, command} where this user may not run the command on the key.
local places = cmsgpack.unpack(ARGV[1])

-- What stands for a value that cannot be read; nil where nothing else could be read either.
local function unreadable(key, field, problem)
    if string.find(problem, '^WRONGTYPE') then
        local kind = redis.pcall('TYPE', key)
        if kind.ok then return { kind.ok } end
        if not redis.acl_check_cmd('TYPE', key) then return { false, 'TYPE' } end
    elseif not redis.acl_check_cmd('HGET', key, field) then
        return { false, 'HGET' }
    end
end

local values = {}
for i = 1, #places, 2 do
    local value = redis.pcall('HGET', places[i], places[i + 1])
    if type(value) == 'table' and value.err then
        local instead = unreadable(places[i], places[i + 1], value.err)
        if not instead then return value end
        value = instead
    end
    values[#values + 1] = value
end
return values
