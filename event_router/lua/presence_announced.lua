-- Presence: what makes writing impossible, and the messages for those whose status changed. Follows presence.lua.
--
-- presence_problem(log): nil, or what makes writing impossible and whether that is for want of a permission. After
--   nil nothing here or in presence.lua fails. log: the stream for announcements.
-- announce_presence(log, maxlen, channel, now_ms, changed): adds a message for each to the fan-out log.
local presence_problem, announce_presence
do
    local call, unpack, format, floor = redis.call, unpack, string.format, math.floor

    -- https://howardhinnant.github.io/date_algorithms.html#civil_from_days
    local function iso(ms)
        local days, rest = floor(ms / 86400000), ms % 86400000
        local z = days + 719468
        local era = floor(z / 146097)
        local day = z - era * 146097
        local year = floor((day - floor(day / 1460) + floor(day / 36524) - floor(day / 146096)) / 365)
        day = day - (365 * year + floor(year / 4) - floor(year / 100))
        local month = floor((5 * day + 2) / 153)
        day = day - floor((153 * month + 2) / 5) + 1
        month = month < 10 and month + 3 or month - 9
        year = year + era * 400 + (month <= 2 and 1 or 0)
        return format(
            '%04d-%02d-%02dT%02d:%02d:%02d.%03dZ', year, month, day, floor(rest / 3600000),
            floor(rest / 60000) % 60, floor(rest / 1000) % 60, rest % 1000
        )
    end

    local function json(text) return (cjson.encode(text):gsub('\\/', '/')) end

    function announce_presence(log, maxlen, channel, now_ms, changed)
        for i = 1, #changed do
            local user, before, now, last_seen = unpack(changed[i])
            local message = format(
                '{"timestamp":"%s","type":"presence","user_id":%s,"status":"%s","previous":"%s","last_seen":"%s"}',
                iso(now_ms), json(user), now, before, iso(last_seen)
            )
            -- pcall: a stream whose last id is the greatest takes no more, and the change stands without it.
            redis.pcall(
                'XADD', log, 'MAXLEN', '~', maxlen, '*', 'channel', channel, 'type', 'presence', 'message', message
            )
        end
    end

    local SET = { { 'ZADD', '0', 'm' }, { 'ZREM', 'm' }, { 'ZMSCORE', 'm' }, { 'ZRANGEBYSCORE', '0', '0' } }
    local NEEDED = {
        { PRESENCE .. 'connections', 'hash', { { 'HMGET', 'f' }, { 'HSET', 'f', 'v' }, { 'HDEL', 'f' } } },
        { PRESENCE .. 'users', 'zset', SET },
        { PRESENCE .. 'names', 'zset', SET },
        { PRESENCE .. 'due', 'zset', SET },
        { PRESENCE .. 'seen', 'zset', SET },
    }

    local function problem_of(key, kind, samples)
        for _, sample in ipairs(samples) do
            if not redis.acl_check_cmd(sample[1], key, unpack(sample, 2)) then return sample[1] .. ' on ' .. key, true end
        end
        if not redis.acl_check_cmd('TYPE', key) then return 'TYPE on ' .. key, true end
        local found = call('TYPE', key).ok
        if found ~= kind and found ~= 'none' then
            return "key '" .. key .. "' is a " .. found .. ', not a ' .. kind, false
        end
    end

    function presence_problem(log)
        for _, needed in ipairs(NEEDED) do
            local problem, denied = problem_of(unpack(needed))
            if problem then return problem, denied end
        end
        if not redis.acl_check_cmd('TIME') then return 'TIME', true end
        return problem_of(log, 'stream', { { 'XADD', '*', 'f', 'v' } })
    end
end
