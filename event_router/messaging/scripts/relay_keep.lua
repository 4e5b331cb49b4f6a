#!lua flags=allow-oom
-- Renews or gives back the lead of a fan-out log's relay, and notes how far it has published.
--
-- KEYS[1]: lease. ARGV: token, milliseconds the lease lasts from now (0 gives it back), last published id,
-- entries ever added up to it.
-- Reply: 1, or 0 with nothing written where another leads. Progress never goes back: a request may arrive late.
local lease = KEYS[1]
local stored = redis.call('HMGET', lease, 'token', 'published')
if stored[1] ~= ARGV[1] then return 0 end

if not id_after(stored[2], ARGV[3]) then redis.call('HSET', lease, 'published', ARGV[3], 'seen', ARGV[4]) end
local ends = 0
if ARGV[2] ~= '0' then
    local time = redis.call('TIME')
    ends = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) + tonumber(ARGV[2])
end
redis.call('HSET', lease, 'until', string.format('%.0f', ends))
return 1
