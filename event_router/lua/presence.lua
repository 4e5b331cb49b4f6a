-- Who is present: what scripts share that change or read it. No script by itself: see redis_client/script.py.
--
-- A change says that at a time (epoch ms of the event) a connection of a user had a status. Of a connection the
-- latest change counts (equal times: the higher rank); it lapses ttl_ms after its time. `offline` without a
-- connection ends everything up to its time. The user has the greatest of the ranks: busy, online, away, offline.
-- So the state is a function of the set of changes and of the time: neither order nor repetition matters.
--
--   event-router:presence:connections  hash  user -> '{rank as announced}' and '\n{at} {rank} {connection}' each
--   event-router:presence:users        zset  who is present, by the time at which the last connection lapses
--   event-router:presence:names        zset  the same users by name, to be listed in pages
--   event-router:presence:due          zset  whose record changes by itself at another time than that
--   event-router:presence:seen         zset  user -> time of the latest change
--
-- observe_presence(now_ms, ttl_ms, changes): applies {{user, connection or false, status, at}, ...}, of any number of
--   users. An `at` ahead of now_ms counts as now_ms; false is now, and later than what is known. A false status only
--   looks at the user again. Returns {{user, status before, status now, last seen in ms}, ...} of those whose status
--   changed, in the order of their first change.
-- presence_of(record, now_ms, ttl_ms): status and number of connections of a stored record, or of false.
-- presence_now(): the server's time in epoch ms.
-- Writing may fail half way unless presence_announced.lua's presence_problem gave nil before.
local observe_presence, presence_of, presence_now
local PRESENCE = 'event-router:presence:'
do
    local RECORDS, USERS, NAMES = PRESENCE .. 'connections', PRESENCE .. 'users', PRESENCE .. 'names'
    local DUE, SEEN = PRESENCE .. 'due', PRESENCE .. 'seen'
    local STATUS = { [0] = 'offline', 'away', 'online', 'busy' }
    local RANK = { away = 1, online = 2, busy = 3, offline = 4 }
    local BUSY, OFFLINE, ENDED = 3, 4, 5 -- ENDED is the rank of the line that ends everything up to its time
    local MOST_CONNECTIONS = 64 -- the newest count; which these are does not depend on order either
    local MOST_BYTES = 512 -- of a connection's name
    local CHUNK = 500 -- unpack fails at about 8,000 values
    local call, unpack, max, min, find = redis.call, unpack, math.max, math.min, string.find

    local function in_chunks(values, step, command, key, option)
        for first = 1, #values, CHUNK * step do
            local last = min(#values, first + CHUNK * step - 1)
            if option then
                call(command, key, option, unpack(values, first, last))
            else
                call(command, key, unpack(values, first, last))
            end
        end
    end

    local function looked_up(command, key, names)
        local found = {}
        for first = 1, #names, CHUNK do
            local part = call(command, key, unpack(names, first, min(#names, first + CHUNK - 1)))
            for i = 1, #part do found[first + i - 1] = part[i] end
        end
        return found
    end

    -- The record in hand: its lines in the order of their names, and the time up to which everything has ended.
    -- Tables that are used again: with tables of each record's own it took half as long again (measured).
    local names, times, ranks, count, ended = {}, {}, {}, 0, 0

    local function take(record)
        count, ended = 0, 0
        if not record then return 0 end
        for time, rank, name in record:gmatch('\n(%d+) (%d) ([^\n]*)') do
            time, rank = tonumber(time), tonumber(rank)
            if rank == ENDED then
                ended = time
            else
                count = count + 1
                names[count], times[count], ranks[count] = name, time, rank
            end
        end
        local announced = tonumber(record:sub(1, 1))
        return STATUS[announced] and announced or 0
    end

    local function remove(place)
        for i = place, count - 1 do names[i], times[i], ranks[i] = names[i + 1], times[i + 1], ranks[i + 1] end
        count = count - 1
    end

    local function insert(place, name, time, rank)
        for i = count, place, -1 do names[i + 1], times[i + 1], ranks[i + 1] = names[i], times[i], ranks[i] end
        count = count + 1
        names[place], times[place], ranks[place] = name, time, rank
    end

    local function note(name, time, rank)
        for i = 1, count do
            if names[i] == name then
                if time > times[i] or time == times[i] and rank > ranks[i] then times[i], ranks[i] = time, rank end
                return
            end
        end
        local place = count + 1
        while place > 1 and name < names[place - 1] do place = place - 1 end
        insert(place, name, time, rank)
    end

    local function oldest()
        local found = 1
        for i = 2, count do
            local a, b = times[i], times[found]
            if a == b then a, b = ranks[i], ranks[found] end
            if a < b then found = i end -- equal ones: the first by name
        end
        return found
    end

    -- Removes what no longer counts. Returns rank and number of connections, and the latest times: of any connection,
    -- of those with the rank, and of all lines.
    local function summed(now_ms, ttl_ms)
        local lapsed, kept = now_ms - ttl_ms, 0
        if ended <= lapsed then ended = 0 end
        local gone = max(lapsed, ended)
        for i = 1, count do
            if times[i] > gone then
                kept = kept + 1
                if kept < i then names[kept], times[kept], ranks[kept] = names[i], times[i], ranks[i] end
            end
        end
        count = kept
        while count > MOST_CONNECTIONS do remove(oldest()) end
        local rank, connections, present, decisive, latest = 0, 0, 0, 0, ended
        for i = 1, count do
            local time, its = times[i], ranks[i]
            if time > latest then latest = time end
            if its <= BUSY then
                connections = connections + 1
                if time > present then present = time end
                if its > rank then
                    rank, decisive = its, time
                elseif its == rank and time > decisive then
                    decisive = time
                end
            end
        end
        return rank, connections, present, decisive, latest
    end

    local function written(rank)
        if count == 0 and ended == 0 then return false end
        local text = rank
        if ended > 0 then text = text .. '\n' .. ended .. ' ' .. ENDED .. ' ' end
        for i = 1, count do text = text .. '\n' .. times[i] .. ' ' .. ranks[i] .. ' ' .. names[i] end
        return text
    end

    local function cleaned(name)
        if #name > MOST_BYTES then name = name:sub(1, MOST_BYTES) end
        if name:find('%c') then name = name:gsub('%c', '?') end
        return name
    end

    -- The time of a change; of one without, that is later than all that is known of what it is about.
    local function time_of(change, now_ms, name)
        local time = change[4]
        if type(time) == 'string' then time = tonumber(time:match('^%d+$')) or 0 end
        if time then return min(time, now_ms) end
        time = max(now_ms, ended + 1)
        for i = 1, count do
            if (not name or names[i] == name) and times[i] >= time then time = times[i] + 1 end
        end
        return time
    end

    -- Returns the time of the latest change.
    local function merge(change, now_ms)
        local seen = 0
        while change do
            local name, rank = change[2], RANK[change[3]]
            if rank then
                local ends_all = rank == OFFLINE and not name
                name = not ends_all and cleaned(name or '')
                local time = time_of(change, now_ms, name)
                if time > seen then seen = min(time, now_ms) end
                if not ends_all then
                    note(name, time, rank)
                elseif time > ended then
                    ended = time
                end
            end
            change = change.next
        end
        return seen
    end

    -- The time of a user's only change, as text, where that has lapsed: all it tells of a user without a record.
    local function lapsed_at(change, lapsed)
        local at = change[4]
        if change.next or not at or not RANK[change[3]] or not find(at, '^%d+$') then return false end
        return at + 0 <= lapsed and at
    end

    -- Returns the users, and the first change of each, which leads to the next one and knows the last.
    local function by_user(changes)
        local users, first, count = {}, {}, 0
        for i = 1, #changes do
            local change = changes[i]
            local user = change[1]
            local known = first[user]
            if known then
                (known.last or known).next = change
                known.last = change
            else
                count = count + 1
                users[count], first[user] = user, change
            end
        end
        return users, first
    end

    function observe_presence(now_ms, ttl_ms, changes)
        local users, first = by_user(changes)
        local records = looked_up('HMGET', RECORDS, users)
        local set, unset, present, absent, named, unnamed = {}, {}, {}, {}, {}, {}
        local due, settled, seen, changed, changed_users = {}, {}, {}, {}, {}
        local function look_again(user, stored)
            local announced = take(stored)
            local last_seen = merge(first[user], now_ms)
            local rank, _, present_at, decisive, latest = summed(now_ms, ttl_ms)
            local record = written(rank)
            if last_seen > 0 then
                seen[#seen + 1] = last_seen
                seen[#seen + 1] = user
            end
            if record ~= stored or not first[user][3] then
                if record then
                    set[#set + 1] = user
                    set[#set + 1] = record
                else
                    unset[#unset + 1] = user
                end
                if rank == 0 then
                    absent[#absent + 1] = user
                    unnamed[#unnamed + 1] = user
                else
                    present[#present + 1] = present_at + ttl_ms
                    present[#present + 1] = user
                    if announced == 0 then
                        named[#named + 1] = 0
                        named[#named + 1] = user
                    end
                    latest = decisive < present_at and decisive or 0
                end
                if latest > 0 then
                    due[#due + 1] = latest + ttl_ms
                    due[#due + 1] = user
                else
                    settled[#settled + 1] = user
                end
            end
            if rank ~= announced then
                changed[#changed + 1] = { user, STATUS[announced], STATUS[rank] }
                changed_users[#changed_users + 1] = user
            end
        end
        for i = 1, #users do
            local user = users[i]
            local past = not records[i] and lapsed_at(first[user], now_ms - ttl_ms)
            if not past then
                look_again(user, records[i])
            elseif past ~= '0' then
                local place = #seen
                seen[place + 1], seen[place + 2] = past, user
            end
        end
        in_chunks(set, 2, 'HSET', RECORDS)
        in_chunks(unset, 1, 'HDEL', RECORDS)
        in_chunks(present, 2, 'ZADD', USERS)
        in_chunks(absent, 1, 'ZREM', USERS)
        in_chunks(named, 2, 'ZADD', NAMES)
        in_chunks(unnamed, 1, 'ZREM', NAMES)
        in_chunks(due, 2, 'ZADD', DUE)
        in_chunks(settled, 1, 'ZREM', DUE)
        in_chunks(seen, 2, 'ZADD', SEEN, 'GT')
        local scores = looked_up('ZMSCORE', SEEN, changed_users)
        for i = 1, #changed do changed[i][4] = tonumber(scores[i] or now_ms) end
        return changed
    end

    function presence_of(record, now_ms, ttl_ms)
        take(record)
        local rank, connections = summed(now_ms, ttl_ms)
        return STATUS[rank], connections
    end

    function presence_now()
        local time = call('TIME')
        return time[1] * 1000 + math.floor(time[2] / 1000)
    end
end
