#!lua
-- Answers what is cached under a key, or gives out the lease to load it, or says who has the lease.
--
-- KEYS[1]: hash that has a `value`, or a `lease` (the token of who loads it), never both. The hash expires
-- with whichever it has. ARGV: token, lease in milliseconds, a value that does not count as one ('': none).
-- Reply: 'value' and it, 'leased' and the token given, or 'busy' and the token of who has it.
local key, token, lease_ms, unwanted = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local kind = redis.call('TYPE', key).ok
if kind == 'hash' then
    local held = redis.call('HMGET', key, 'value', 'lease')
    if held[1] and held[1] ~= unwanted then return {'value', held[1]} end
    if held[2] then return {'busy', held[2]} end
end
if not redis.acl_check_cmd('PEXPIRE', key, lease_ms) then -- refused half way, the lease would never end
    return redis.error_reply('NOPERM this user has no permissions to run PEXPIRE on ' .. key)
end
if kind ~= 'none' then redis.call('DEL', key) end
redis.call('HSET', key, 'lease', token)
redis.call('PEXPIRE', key, lease_ms)
return {'leased', token}
