#!lua flags=no-writes
-- The presence of a user as it is now.
--
-- ARGV: ttl in ms, user. Reply: {status, last seen in ms or false, connections}.
local record = redis.call('HGET', PRESENCE .. 'connections', ARGV[2])
local status, count = presence_of(record, presence_now(), tonumber(ARGV[1]))
return { status, redis.call('ZSCORE', PRESENCE .. 'seen', ARGV[2]), count }
