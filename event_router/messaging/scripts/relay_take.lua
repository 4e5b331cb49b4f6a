#!lua flags=allow-oom
-- Takes the lead of a fan-out log's relay unless somebody else holds it.
--
-- KEYS: lease, fan-out log. ARGV: who asks, milliseconds the lease lasts.
-- Reply: {token, last published id, entries ever added up to it, 1 unless another one led last}, or {0,
-- milliseconds until the lease ends}.
-- The token grows with each lead, also after the lease itself was lost: it is never below the server's clock.
local lease, log, holder, lasts = KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local stored = redis.call('HMGET', lease, 'token', 'holder', 'until', 'published', 'seen')
local left = (tonumber(stored[3]) or 0) - now
-- More than a whole lease is left only where the clock went back.
if left > 0 and left <= lasts and stored[2] ~= holder then return { 0, left } end

local added, length, last = 0, 0, '0-0'
if redis.call('EXISTS', log) == 1 then
    local info = redis.call('XINFO', 'STREAM', log)
    for i = 1, #info, 2 do
        if info[i] == 'entries-added' then added = info[i + 1] end
        if info[i] == 'length' then length = info[i + 1] end
        if info[i] == 'last-generated-id' then last = info[i + 1] end
    end
end
local published, seen = stored[4], stored[5]
-- A log that ends before what was published is another log. From either its beginning is published.
if not published or id_after(published, last) then published, seen = '0-0', string.format('%.0f', added - length) end
local token = string.format('%.0f', math.max((tonumber(stored[1]) or 0) + 1, now))
redis.call('HSET', lease, 'token', token, 'holder', holder, 'until', string.format('%.0f', now + lasts), 'published', published, 'seen', seen)
return { token, published, seen, (not stored[2] or stored[2] == holder) and 1 or 0 }
