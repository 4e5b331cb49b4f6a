#!lua
-- Commits a batch: for each unit of work validate, acknowledge, apply; never one in part.
--
-- ARGV[1]: msgpack array {group, checkpoint key, streams, presence, units}; all values are text.
--   presence: false where no unit changes it, else {ttl, fan-out log, its maxlen, channel}
--   unit: {stream, entry id, hashes, emissions, branches, presence, dedupe}; false for an empty list from
--     the emissions on
--   hashes: {key, reads, changes, cleared, ttl or nil}
--   reads: false, or field -> value as it was read, false where it was absent
--   changes: field -> text that is set, number that is added (of at most 15 digits), false to delete it,
--     {LATEST, version, text}, {MAXIMUM, integer} or {INCREMENT, integer} (of more digits)
--   emissions: {stream, maxlen or false, names and values in turn}
--   branches: {ONCE, mark, ttl, hashes, emissions, branches} or
--     {NEWEST, key, version, ttl, record, hashes, emissions, branches}
--   presence: {user, connection or false, status, time}, see presence.lua
--   dedupe: false, or {mark, ttl or false}; where the mark stands the unit is settled without effects, else
--     it sets the mark if there is a ttl
-- Reply: one answer a unit: 1 committed, 0 settled before, 2 conflict, {3, reason} invalid,
--   {4, what} denied by the ACL, {5, error} failed after the acknowledgement (never expected). Last, in
--   place of an answer: the microseconds it took.
-- Settled beats conflict beats invalid and denied.
-- NOGROUP ends the script with nothing written. Times to live are milliseconds.
local ONCE, NEWEST = 1, 2
local LATEST, MAXIMUM, INCREMENT = 1, 2, 3
local COMMITTED, SETTLED, CONFLICT, INVALID, DENIED, BROKEN = 1, 0, 2, 3, 4, 5
local MAX_ARGS = 6000 -- unpack fails at about 8,000 values

local call, unpack, pairs, next, type = redis.call, unpack, pairs, next, type
local match, find = string.match, string.find

-- What it took. In Valkey the time stands still within a script, and Redis below 7.4 has no `os`.
local has_os, os_library = pcall(function() return os end)
local function microseconds()
    if has_os and os_library then return os_library.clock() * 1000000 end
    local time = redis.pcall('TIME')
    return time.err and 0 or time[1] * 1000000 + time[2]
end
local begun = microseconds()

local batch = cmsgpack.unpack(ARGV[1])
local group, checkpoint_key, streams, presence, units = batch[1], batch[2], batch[3], batch[4], batch[5]

-- Permissions and key types. Once a batch each kind of key is asked for every command, and each key for
-- one that writes: rules may allow to read more keys than to write.

local SAMPLES = {
    hash = { { 'HSET', 'f', 'v' }, { 'HINCRBY', 'f', '1' }, { 'HDEL', 'f' }, { 'HGET', 'f' }, { 'HMGET', 'f' }, { 'DEL' }, { 'PEXPIRE', '1' }, { 'TYPE' } },
    stream = { { 'XADD', '*', 'f', 'v' }, { 'TYPE' } },
    mark = { { 'SET', 'v', 'NX', 'PX', '1' }, { 'EXISTS' } },
}
local asked, permitted, types = { hash = {}, stream = {}, mark = {} }, { hash = {}, stream = {}, mark = {} }, {}
local claimed = {} -- what the unit makes of keys that do not exist yet

local function denied(use, key)
    if permitted[use][key] then return false end
    local class = match(key, '^[^:]*:[^:]*:') or key
    local samples = SAMPLES[use]
    for i = 1, asked[use][class] and 1 or #samples do
        if not redis.acl_check_cmd(samples[i][1], key, unpack(samples[i], 2)) then return samples[i][1] .. ' on ' .. key end
    end
    if use == 'stream' and not asked[use][class] and not redis.acl_check_cmd('XINFO', 'STREAM', key) then
        return 'XINFO on ' .. key
    end
    asked[use][class], permitted[use][key] = true, true
    return false
end

local function refused_by_acl(problem) -- Valkey's words, and Redis's
    return find(problem, 'ACL failure in script', 1, true) or find(problem, 'The user executing the script', 1, true)
end

local function wrong_type(use, key)
    local what = denied(use, key)
    if what then return DENIED, what end
    local kind = types[key]
    if not kind then
        kind = call('TYPE', key).ok
        types[key] = kind
    end
    if kind == 'hash or none' and use ~= 'hash' then
        kind = call('TYPE', key).ok
        types[key] = kind
    end
    if kind == 'none' or kind == 'hash or none' then
        kind = claimed[key] or use
        claimed[key] = use
    end
    if kind ~= use then return INVALID, "key '" .. key .. "' is a " .. kind .. ', not a ' .. use end
end

-- Increments are summed per field over the batch and written once: key -> field -> {base, sum}.

local tallies, undo, undone = {}, {}, 0

local function write_tally(key, field, tally)
    local sum = tally.sum
    while not fits(sum) do
        local step = less(sum, 0) and '-9223372036854775807' or '9223372036854775807'
        call('HINCRBY', key, field, step)
        sum = plus(sum, step:byte(1) == 45 and step:sub(2) or '-' .. step)
    end
    if tally.touched then call('HINCRBY', key, field, text(sum)) end
    types[key] = 'hash'
end

local function flush_field(key, field)
    local fields = tallies[key]
    local tally = fields and fields[field]
    if tally then
        fields[field] = nil
        if tally.touched then write_tally(key, field, tally) end
    end
end

local function flush(key)
    local fields = tallies[key]
    if fields then
        tallies[key] = nil
        for field, tally in pairs(fields) do
            if tally.touched then write_tally(key, field, tally) end
        end
    end
end

local function tally_of(key, field)
    local fields = tallies[key]
    if not fields then
        fields = {}
        tallies[key] = fields
    end
    local tally = fields[field]
    if not tally then
        local stored = call('HGET', key, field) or '0'
        if not canonical(stored) then return nil, stored end
        tally = { base = number(stored), sum = 0, touched = false }
        fields[field] = tally
    end
    return tally
end

local function shown(value)
    return "'" .. (#value > 40 and value:sub(1, 40) .. '...' or value) .. "'"
end

local function exhausted(stream)
    if types[stream] ~= 'stream' then return false end
    local info = call('XINFO', 'STREAM', stream)
    for i = 1, #info, 2 do
        if info[i] == 'last-generated-id' then
            return match(info[i + 1], '^18446744073709551615%-') ~= nil
        end
    end
end

-- Validation. Decides conditions (`won`), gathers in `writes` what HSET shall write, and adds to the
-- tallies, noting in `undo` how to take that back.

local marks, versions, roomy = {}, {}, {}

local function read_fields(key, fields)
    local pending = tallies[key]
    if pending then
        for i = 1, #fields do flush_field(key, fields[i]) end
    end
    if #fields < MAX_ARGS then return redis.pcall('HMGET', key, unpack(fields)) end
    local values = {}
    for i = 1, #fields, MAX_ARGS do
        local part = redis.pcall('HMGET', key, unpack(fields, i, math.min(#fields, i + MAX_ARGS - 1)))
        if part.err then return part end
        for j = 1, #part do values[#values + 1] = part[j] end
    end
    return values
end

-- Of a wrong type HMGET answers an error, which is no value: the handler runs again and meets it.
local function unreadable(key, values)
    if refused_by_acl(values.err) then return DENIED, 'HMGET on ' .. key end
    return CONFLICT
end

local function no_integer(key, field, stored)
    return INVALID, 'field ' .. shown(field) .. " of key '" .. key .. "' holds " .. shown(stored) .. ', not a 64-bit integer'
end

local function overflow(key, field)
    return INVALID, 'field ' .. shown(field) .. " of key '" .. key .. "' would overflow 64 bits"
end

local function note_hash(key, values)
    if types[key] ~= 'hash' then
        for i = 1, #values do
            if values[i] then
                types[key] = 'hash'
                return
            end
        end
        types[key] = types[key] or 'hash or none'
    end
end

local function amount_of(change)
    if type(change) == 'number' then return change end
    return number(change[2])
end

local function check_tallied(key, changes, increments)
    for i = 1, #increments do
        local field = increments[i]
        local tally, stored = tally_of(key, field)
        if not tally then return no_integer(key, field, stored) end
        local sum = plus(tally.sum, amount_of(changes[field]))
        if not fits(plus(tally.base, sum)) then return overflow(key, field) end
        undo[undone + 1], undo[undone + 2], undo[undone + 3] = tally, tally.sum, tally.touched
        undone = undone + 3
        tally.sum, tally.touched = sum, true
    end
end

-- A hash that is cleared first has no stored values that count.
local function gather_cleared(h)
    local writes = { h[1] }
    for field, change in pairs(h[3]) do
        local kind = type(change)
        if kind == 'number' then change = text(change) end
        if kind == 'table' then
            if change[1] == LATEST then
                writes[#writes + 1] = field .. ':version'
                writes[#writes + 1] = change[2]
                change = change[3]
            else
                change = change[2]
            end
        end
        if kind ~= 'boolean' then
            writes[#writes + 1] = field
            writes[#writes + 1] = change
        end
    end
    if #writes > 1 then h.writes = writes end
end

-- Reads everything the unit needs of one hash in one call. Increments beside other writes become a
-- part of them; increments alone, and those of a unit with branches, go to the tallies.
local function check_hash(h, alone)
    local key, reads, changes, cleared = h[1], h[2], h[3], h[4]
    local wanted, expected, n = nil, 0, 0
    if reads then
        wanted = {}
        for field in pairs(reads) do
            n = n + 1
            wanted[n] = field
        end
        expected = n
    end
    local status, reason
    local increments, deletes
    local written = n > 0
    if not cleared then
        for field, change in pairs(changes) do
            local kind = type(change)
            if kind == 'table' and change[1] ~= INCREMENT then
                n, wanted = n + 1, wanted or {}
                if change[1] == LATEST then
                    wanted[n], written = field .. ':version', true
                else
                    wanted[n] = field
                end
            elseif kind == 'string' then
                written = true
            elseif kind == 'boolean' then
                deletes = deletes or {}
                deletes[#deletes + 1] = field
            else
                increments = increments or {}
                increments[#increments + 1] = field
            end
        end
        if deletes then h.deletes = deletes end
        if increments and alone and written then
            wanted = wanted or {}
            for i = 1, #increments do wanted[n + i] = increments[i] end
            n = n + #increments
        elseif increments then
            h.tallied = true
        end
    end
    local values
    if n > 0 then
        local what = denied('hash', key)
        if what then return DENIED, what end
        values = read_fields(key, wanted)
        if values.err then
            if expected > 0 then return unreadable(key, values) end
            if refused_by_acl(values.err) then return DENIED, 'HMGET on ' .. key end
        else
            for i = 1, expected do
                if values[i] ~= reads[wanted[i]] then return CONFLICT end
            end
            note_hash(key, values)
        end
    end
    if n == 0 and not next(changes) and not cleared and not h[5] then return end -- asked for, and not changed
    status, reason = wrong_type('hash', key)
    if status then return status, reason end
    if cleared then return gather_cleared(h) end
    if h.tallied and not written and n == expected then return check_tallied(key, changes, increments) end
    local writes, w, i = { key }, 1, expected
    for field, change in pairs(changes) do
        local kind = type(change)
        if kind == 'string' then
            writes[w + 1], writes[w + 2] = field, change
            w = w + 2
        elseif kind == 'table' and change[1] ~= INCREMENT then
            i = i + 1
            local stored = values[i]
            if change[1] == LATEST then
                if not stored or newer_version(change[2], stored) then
                    writes[w + 1], writes[w + 2], writes[w + 3], writes[w + 4] = field, change[3], wanted[i], change[2]
                    w = w + 4
                end
            else
                if stored and not canonical(stored) then return no_integer(key, field, stored) end
                if not stored or less(number(stored), number(change[2])) then
                    writes[w + 1], writes[w + 2] = field, change[2]
                    w = w + 2
                end
            end
        end
    end
    if h.tallied then
        status, reason = check_tallied(key, changes, increments)
        if status then return status, reason end
    elseif increments then
        for at = 1, #increments do
            local field, stored = increments[at], values[i + at] or '0'
            if not canonical(stored) then return no_integer(key, field, stored) end
            local sum = plus(number(stored), amount_of(changes[field]))
            if not fits(sum) then return overflow(key, field) end
            writes[w + 1], writes[w + 2] = field, text(sum)
            w = w + 2
        end
    end
    if w > 1 then h.writes = writes end
end

local function check_emission(emission)
    local stream = emission[1]
    local status, reason = wrong_type('stream', stream)
    if status then return status, reason end
    if not roomy[stream] then
        if exhausted(stream) then return INVALID, "stream '" .. stream .. "' can take no more entries: its last id is the greatest" end
        roomy[stream] = true
    end
end

local check

local function check_branch(branch)
    local key = branch[2]
    if branch[1] == ONCE then
        local what = denied('mark', key)
        if what then return DENIED, what end
        branch.won = not marks[key] and call('EXISTS', key) == 0
        marks[key] = true
        if branch.won then return check(branch[4], branch[5], branch[6]) end
        return
    end
    local status, reason = wrong_type('hash', key)
    if status then return status, reason end
    flush_field(key, 'version')
    local stored = versions[key] or call('HGET', key, 'version')
    branch.won = not stored or newer_version(branch[3], stored)
    if branch.won then
        versions[key] = branch[3]
        return check(branch[6], branch[7], branch[8])
    end
end

local function check_others(emissions, branches)
    local status, reason
    if emissions then
        for i = 1, #emissions do
            status, reason = check_emission(emissions[i])
            if status then return status, reason end
        end
    end
    if branches then
        for i = 1, #branches do
            status, reason = check_branch(branches[i])
            if status then return status, reason end
        end
    end
end

function check(hashes, emissions, branches)
    for i = 1, #hashes do
        local status, reason = check_hash(hashes[i])
        if status then return status, reason end
    end
    return check_others(emissions, branches)
end

-- Reads that changed matter more than whatever else is wrong: the handler decided on them.
local function check_unit(hashes, emissions, branches)
    local status, reason
    for i = 1, #hashes do
        if hashes[i][2] or not status then
            local found, why = check_hash(hashes[i], not branches)
            if found == CONFLICT then return CONFLICT end
            if not status then status, reason = found, why end
        end
    end
    if status then return status, reason end
    return check_others(emissions, branches)
end

-- Application: nothing here may fail.

local apply

local function set_fields(key, writes)
    if tallies[key] then
        for i = 2, #writes, 2 do flush_field(key, writes[i]) end
    end
    if #writes < MAX_ARGS then
        call('HSET', unpack(writes))
    else
        for i = 2, #writes, MAX_ARGS do
            call('HSET', key, unpack(writes, i, math.min(#writes, i + MAX_ARGS - 1)))
        end
    end
    types[key] = 'hash'
end

local function delete_fields(key, fields)
    flush(key) -- what is still to be written may keep the key, and its time to live
    for i = 1, #fields, MAX_ARGS do
        call('HDEL', key, unpack(fields, i, math.min(#fields, i + MAX_ARGS - 1)))
    end
    types[key] = nil
end

local function apply_hash(h)
    local key = h[1]
    if h[4] then
        flush(key)
        call('DEL', key)
        types[key] = 'none'
    end
    if h.writes then set_fields(key, h.writes) end
    if h.tallied then types[key] = 'hash' end -- written with the tallies
    if h.deletes then delete_fields(key, h.deletes) end
    if h[5] then
        flush(key)
        call('PEXPIRE', key, h[5])
    end
end

local function apply_emission(emission)
    if emission[2] then
        call('XADD', emission[1], 'MAXLEN', '~', emission[2], '*', unpack(emission[3]))
    else
        call('XADD', emission[1], '*', unpack(emission[3]))
    end
    types[emission[1]] = 'stream'
end

local function apply_branch(branch, id)
    if not branch.won then return end
    local key = branch[2]
    if branch[1] == ONCE then
        call('SET', key, id, 'NX', 'PX', branch[3])
        return apply(branch[4], branch[5], branch[6], id)
    end
    local writes = { key, 'version', branch[3] }
    for field, value in pairs(branch[5]) do
        writes[#writes + 1] = field
        writes[#writes + 1] = value
    end
    flush(key)
    set_fields(key, writes)
    call('PEXPIRE', key, branch[4])
    return apply(branch[6], branch[7], branch[8], id)
end

function apply(hashes, emissions, branches, id)
    for i = 1, #hashes do apply_hash(hashes[i]) end
    if emissions then
        for i = 1, #emissions do apply_emission(emissions[i]) end
    end
    if branches then
        for i = 1, #branches do apply_branch(branches[i], id) end
    end
end

local acknowledged
local presence_changes = {}
local presence_reason -- what makes changing it impossible

-- Presence is the router's own: what is wrong with its keys is no entry's fault, so all wait.
local function presence_impossible()
    if presence_reason == nil then
        presence_reason = presence_problem(presence[2]) or false
    end
    return presence_reason
end

local function take_back()
    for i = undone - 2, 1, -3 do
        undo[i].sum, undo[i].touched = undo[i + 1], undo[i + 2]
    end
end

local function refused(unit, status, reason)
    take_back()
    if #call('XPENDING', unit[1], group, unit[2], unit[2], 1) == 0 then return SETTLED end
    if status == CONFLICT then return CONFLICT end
    return { status, reason }
end

local function process(unit)
    local stream, id, changes, dedupe = unit[1], unit[2], unit[6], unit[7]
    local status, reason
    if dedupe then
        local what = denied('mark', dedupe[1])
        if what then return refused(unit, DENIED, what) end
        if call('EXISTS', dedupe[1]) == 1 then
            call('XACK', stream, group, id)
            return SETTLED
        end
    end
    status, reason = check_unit(unit[3], unit[4], unit[5])
    if not status and changes and presence_impossible() then status, reason = DENIED, presence_reason end
    if status then return refused(unit, status, reason) end
    if call('XACK', stream, group, id) == 0 then
        take_back()
        return SETTLED
    end
    acknowledged = true
    apply(unit[3], unit[4], unit[5], id)
    if dedupe and dedupe[2] then call('SET', dedupe[1], id, 'PX', dedupe[2]) end
    if changes then
        for i = 1, #changes do presence_changes[#presence_changes + 1] = changes[i] end
    end
    return COMMITTED
end

-- The group must exist: XACK answers 0 without it, which must not be read as "settled".
for _, stream in ipairs(streams) do
    local proof = redis.pcall('XPENDING', stream, group, '-', '+', '1')
    if proof.err then return proof end
    if not redis.acl_check_cmd('XACK', stream, group, '0-1') then
        return redis.error_reply('NOPERM this user has no permissions to run XACK on ' .. stream)
    end
end
local kept = redis.pcall('HGET', checkpoint_key, 'f')
if type(kept) == 'table' and kept.err then return kept end
if not redis.acl_check_cmd('HSET', checkpoint_key, 'f', 'v') then
    return redis.error_reply('NOPERM this user has no permissions to run HSET on ' .. checkpoint_key)
end

local answers, settled = {}, {}
for i, unit in ipairs(units) do
    undone, acknowledged = 0, false
    if next(marks) then marks = {} end
    if next(versions) then versions = {} end
    if next(claimed) then claimed = {} end
    local ok, answer = pcall(process, unit)
    if not ok then
        local problem = type(answer) == 'table' and answer.err or tostring(answer)
        if acknowledged then
            answer = { BROKEN, problem }
        else
            answer = refused(unit, refused_by_acl(problem) and DENIED or INVALID, problem)
        end
    end
    answers[i] = answer
    if answer == COMMITTED or answer == SETTLED then settled[unit[1]] = true end
end
for key in pairs(tallies) do flush(key) end

local function change_presence()
    local now_ms = presence_now()
    local changed = observe_presence(now_ms, presence[1], presence_changes)
    announce_presence(presence[2], presence[3], presence[4], now_ms, changed)
end
if #presence_changes > 0 then
    local ok, problem = pcall(change_presence)
    for i, unit in ipairs(units) do
        if not ok and unit[6] and answers[i] == COMMITTED then
            answers[i] = { BROKEN, type(problem) == 'table' and problem.err or tostring(problem) }
        end
    end
end

-- The checkpoint: everything up to an id is settled; '(' means everything before it. When nothing is
-- pending that is all that was delivered, which the last entry settled need not be. A group that was set
-- back is given entries again: then it is not beyond those that were, whatever is still pending after them.
local function last_delivered(stream)
    for _, listed in ipairs(redis.pcall('XINFO', 'GROUPS', stream)) do
        local found = fields_of(listed)
        if found['name'] == group then return found['last-delivered-id'] end
    end
end
for _, stream in ipairs(streams) do
    local pending = call('XPENDING', stream, group, '-', '+', '1')
    local lowest = pending[1] and pending[1][1]
    if lowest or settled[stream] then
        local id = last_delivered(stream)
        if lowest and not (id and id_after(lowest, id)) then id = '(' .. lowest end
        if id then call('HSET', checkpoint_key, stream, id) end
    end
end
answers[#units + 1] = math.floor(microseconds() - begun)
return answers
