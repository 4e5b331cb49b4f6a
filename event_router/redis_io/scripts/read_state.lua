#!lua flags=no-writes
-- Reads fields of many hashes in one step.
--
-- ARGV[1]: msgpack flat array {key, field, ...}. Reply: the values in order; false where absent,
-- {type} where the key is no hash.
local places = cmsgpack.unpack(ARGV[1])
local values = {}
for i = 1, #places, 2 do
    local value = redis.pcall('HGET', places[i], places[i + 1])
    if type(value) == 'table' and value.err then
        if not string.find(value.err, '^WRONGTYPE') then return value end
        value = { redis.call('TYPE', places[i]).ok }
    end
    values[#values + 1] = value
end
return values
