#!lua flags=no-writes
-- The records of requests, and the time by which they are judged.
--
-- KEYS: requests. Reply: {epoch ms of this server, then for each its fields and values in turn}.
local time = redis.call('TIME')
local reply = { string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)) }
for _, key in ipairs(KEYS) do reply[#reply + 1] = redis.call('HGETALL', key) end
return reply
