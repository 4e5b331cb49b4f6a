#!lua
-- Adds a notification to its stream, once for each mark, and answers its id in the stream.
--
-- KEYS: mark (text: the id given before), stream. ARGV: MAXLEN, time to live of the mark in milliseconds,
-- then the entry's names and values in turn.
local mark, stream, maxlen, ttl_ms = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local known = redis.call('GET', mark)
if known then return known end
if not redis.acl_check_cmd('SET', mark, '', 'PX', ttl_ms) then -- refused half way, it would be added twice
    return redis.error_reply('NOPERM this user has no permissions to run SET on ' .. mark)
end
local id = redis.call('XADD', stream, 'MAXLEN', '~', maxlen, '*', unpack(ARGV, 3))
redis.call('SET', mark, id, 'PX', ttl_ms)
return id
