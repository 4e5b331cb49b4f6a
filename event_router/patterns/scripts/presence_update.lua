#!lua
-- Applies one change of a user's presence and announces it where the user's status changed.
--
-- KEYS[1]: fan-out log. ARGV: ttl in ms, its maxlen, channel, user, status, connection or '', epoch ms or ''.
-- Reply: {} or {status before, status now}.
local log, user = KEYS[1], ARGV[4]
local problem, denied = presence_problem(log)
if problem then return redis.error_reply((denied and 'NOPERM no permission for ' or 'WRONGTYPE ') .. problem) end
local now_ms = presence_now()
local connection, at = ARGV[6] ~= '' and ARGV[6], ARGV[7] ~= '' and ARGV[7]
local changed = observe_presence(now_ms, tonumber(ARGV[1]), { { user, connection, ARGV[5], at } })
announce_presence(log, ARGV[2], ARGV[3], now_ms, changed)
if not changed[1] then return {} end
return { changed[1][2], changed[1][3] }
