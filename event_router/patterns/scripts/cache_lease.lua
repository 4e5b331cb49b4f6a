#!lua
-- Renews a lease, stores what was loaded under it, or gives it back; only for who has it.
--
-- KEYS[1]: see cache_claim.lua. ARGV: token, time to live in milliseconds ('': give the lease back),
-- and the value to store, if there is one.
-- Reply: 1, or 0 where somebody else has the lease or nobody: it ended, or the key was invalidated.
local key, token, ttl_ms, value = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
if redis.call('HGET', key, 'lease') ~= token then return 0 end
if ttl_ms == '' then return redis.call('DEL', key) end
if value then
    redis.call('HSET', key, 'value', value)
    redis.call('HDEL', key, 'lease')
end
return redis.call('PEXPIRE', key, ttl_ms)
