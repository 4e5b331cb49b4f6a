#!lua
-- Looks again at users of whom a connection has lapsed, announces whose status changed, forgets who was last seen
-- long ago.
--
-- KEYS[1]: fan-out log. ARGV: ttl in ms, its maxlen, channel, limit, how long last seen is kept in ms.
-- Reply: {users looked at and forgotten, users whose status changed}; there may be more where the first is limit.
local log, limit = KEYS[1], tonumber(ARGV[4])
local problem, denied = presence_problem(log)
if problem then return redis.error_reply((denied and 'NOPERM no permission for ' or 'WRONGTYPE ') .. problem) end
local now_ms = presence_now()

local again, known = {}, {}
local function due(set, until_ms, most)
    if most <= 0 then return {} end
    return redis.call('ZRANGEBYSCORE', PRESENCE .. set, '-inf', string.format('%.0f', until_ms), 'LIMIT', 0, most)
end
for _, set in ipairs({ 'users', 'due' }) do
    for _, user in ipairs(due(set, now_ms, limit - #again)) do
        if not known[user] then
            known[user] = true
            again[#again + 1] = { user, false, false, '0' }
        end
    end
end
local changed = observe_presence(now_ms, tonumber(ARGV[1]), again)
announce_presence(log, ARGV[2], ARGV[3], now_ms, changed)

local forgotten = due('seen', now_ms - tonumber(ARGV[5]), math.min(limit - #again, 500))
if forgotten[1] then redis.call('ZREM', PRESENCE .. 'seen', unpack(forgotten)) end
return { #again + #forgotten, #changed }
