#!lua
-- Gives one dead letter back to its stream and takes it out of the dead letters, both or neither.
-- The header has Redis refuse the script whole when it is out of memory, before the first write.
--
-- KEYS: dead letters, stream
-- ARGV: id of the letter, number of its original fields, timestamp to add or ''
-- Returns the id of the new entry, or false when the letter is no longer there.
local letter = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not letter then
    return false
end
-- A permission missing half way would leave the entry in both streams.
if not redis.acl_check_cmd('XDEL', KEYS[1], ARGV[1]) then
    return redis.error_reply('NOPERM this user may not XDEL from ' .. KEYS[1])
end
local entry = {}
for position = 1, 2 * tonumber(ARGV[2]) do
    entry[position] = letter[2][position]
end
if ARGV[3] ~= '' then
    entry[#entry + 1] = 'timestamp'
    entry[#entry + 1] = ARGV[3]
end
local id = redis.call('XADD', KEYS[2], '*', unpack(entry))
redis.call('XDEL', KEYS[1], ARGV[1])
return id
