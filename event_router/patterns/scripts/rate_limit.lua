#!lua
-- Counts a call if fewer than `limit` were counted within the window that ends now.
--
-- KEYS[1]: list of the times of the calls that were counted, oldest first, in microseconds of this server.
-- ARGV: limit, window in microseconds. Both are at most 2^53, so that doubles hold every sum.
-- Reply: 1 or 0 for counted, calls left, microseconds until a call can be counted, the time now.
-- A list, since it keeps calls of the same microsecond apart and takes about 10 bytes a call.
local key, limit, window = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local ttl = math.ceil(window / 1000) + 2 -- counts from the script's start, a little before `now`
if not redis.acl_check_cmd('PEXPIRE', key, ttl) then -- refused half way, the list would never expire
    return redis.error_reply('NOPERM this user has no permissions to run PEXPIRE on ' .. key)
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local text = string.format('%.0f', now)

local function at(index)
    local found = redis.call('LINDEX', key, index)
    return found and (tonumber(found) or error('event-router: the list holds no times'))
end

-- The clock was set back: what lies ahead counts as made now, so that nothing blocks for longer than a window.
local count = redis.call('LLEN', key)
for index = count - 1, 0, -1 do
    if at(index) <= now then break end
    redis.call('LSET', key, index, text)
end

-- Drop what left the window. Halving finds it without reading the list.
if count > 0 and at(0) <= now - window then
    local old, kept = 0, count
    while kept - old > 1 do
        local middle = math.floor((old + kept) / 2)
        if at(middle) <= now - window then old = middle else kept = middle end
    end
    redis.call('LTRIM', key, kept, -1)
    count = count - kept
end

if count >= limit then return {0, 0, at(count - limit) + window - now, now} end
redis.call('RPUSH', key, text)
redis.call('PEXPIRE', key, ttl)
return {1, limit - count - 1, limit - count > 1 and 0 or at(0) + window - now, now}
