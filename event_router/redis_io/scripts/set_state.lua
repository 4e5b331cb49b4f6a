#!lua
-- Sets fields of a hash and, where one is given, its time to live: both or neither.
--
-- KEYS[1]: hash. ARGV: time to live in milliseconds or '', then fields and values in turn.
local key, ttl = KEYS[1], ARGV[1]
local MAX_ARGS = 6000 -- unpack fails at about 8,000 values
if ttl ~= '' and not redis.acl_check_cmd('PEXPIRE', key, ttl) then
    return redis.error_reply('NOPERM this user has no permissions to run PEXPIRE on ' .. key)
end
for i = 2, #ARGV, MAX_ARGS do
    redis.call('HSET', key, unpack(ARGV, i, math.min(#ARGV, i + MAX_ARGS - 1)))
end
if ttl ~= '' then redis.call('PEXPIRE', key, ttl) end
return 1
