#!lua
-- Commits a batch: for each unit of work validate, acknowledge, apply; never one in part.
--
-- ARGV[1]: msgpack array of {group, checkpoint key, streams, presence}, then the values of all units one after the
--   other: a table for each unit, hash or list of fields would take longer to build than to check (measured).
--   All values are text but for counts, ttls and increments of at most 15 digits; one that is absent is false.
--   presence: false where no unit changes it, else {ttl, fan-out log, its maxlen, channel}
--   unit: how many values it has, stream, entry id, rest, how many changes of presence it makes, these changes,
--     hashes
--   change of presence: user, connection or false, status, time; see presence.lua
--   rest: false, or {emissions, branches, dedupe}, each of them false where there is none
--   emissions: {stream, maxlen or false, names and values in turn}
--   branches: {ONCE, mark, ttl, hashes, emissions, branches} or {NEWEST, record, ttl, hashes, emissions, branches},
--     the hashes one after the other in an array, the record as HSET takes it: {key, 'version', version, ...}
--   dedupe: {mark, ttl or false}; where the mark stands the unit is settled without effects, else it sets the mark
--     if there is a ttl
--   hash that is only counted in: how many values it has, false, key, fields and amounts in turn
--   any other hash, so that what HMGET and HSET take stands side by side:
--     how many values it has; how many fields were read, are set if a version is the latest, are incremented; more
--     the values that were read, or false
--     key, fields that were read, that hold versions, that are raised, that are incremented
--     what is incremented: fields and amounts in turn
--     what is set: fields and values in turn
--     what is raised: fields and integers in turn
--     what is set if its version is the latest: field of the version, version, field, value
--   more: false, or {how many are raised, cleared, ttl or false, fields to delete or false}; what is cleared is
--     deleted before the rest is applied
-- Reply: one answer a unit: 1 committed, 0 settled before, 2 conflict, {3, reason} invalid,
--   {4, what} denied by the ACL, {5, error} failed after the acknowledgement (never expected). Last, in
--   place of an answer: the microseconds it took.
-- Settled beats conflict beats invalid and denied.
-- NOGROUP ends the script with nothing written. Times to live are milliseconds.
local ONCE, NEWEST = 1, 2
local COMMITTED, SETTLED, CONFLICT, INVALID, DENIED, BROKEN = 1, 0, 2, 3, 4, 5
local MAX_ARGS = 6000 -- unpack fails at about 8,000 values

local call, try, may = redis.call, redis.pcall, redis.acl_check_cmd
local unpack, pairs, type = unpack, pairs, type
local match, find, min = string.match, string.find, math.min

-- What it took. In Valkey the time stands still within a script, and Redis below 7.4 has no `os`.
local has_os, os_library = pcall(function() return os end)
local function microseconds()
    if has_os and os_library then return os_library.clock() * 1000000 end
    local time = try('TIME')
    return time.err and 0 or time[1] * 1000000 + time[2]
end
local begun = microseconds()

local batch = cmsgpack.unpack(ARGV[1])
local group, checkpoint_key, streams, presence = unpack(batch[1])

-- Permissions and key types. Once a batch each kind of key is asked for every command, and each key for
-- one that writes: rules may allow to read more keys than to write.

local SAMPLES = {
    hash = { { 'HSET', 'f', 'v' }, { 'HINCRBY', 'f', '1' }, { 'HDEL', 'f' }, { 'HGET', 'f' }, { 'HMGET', 'f' }, { 'DEL' }, { 'PEXPIRE', '1' }, { 'TYPE' } },
    stream = { { 'XADD', '*', 'f', 'v' }, { 'TYPE' } },
    mark = { { 'SET', 'v', 'NX', 'PX', '1' }, { 'EXISTS' } },
}
local asked, permitted, types = { hash = {}, stream = {}, mark = {} }, { hash = {}, stream = {}, mark = {} }, {}
local hashes = permitted.hash -- and what is known of them: 'hash', 'hash or none', or true for nothing
local claimed = {} -- what the unit makes of keys that do not exist yet
local noted = false -- whether the unit left something in there, or in `marks` and `versions`

local function denied(use, key)
    if permitted[use][key] then return false end
    local class = match(key, '^[^:]*:[^:]*:') or key
    local samples = SAMPLES[use]
    for i = 1, asked[use][class] and 1 or #samples do
        local sample = samples[i]
        if not may(sample[1], key, unpack(sample, 2)) then return sample[1] .. ' on ' .. key end
    end
    if use == 'stream' and not asked[use][class] and not may('XINFO', 'STREAM', key) then return 'XINFO on ' .. key end
    asked[use][class], permitted[use][key] = true, true
    return false
end

local function refused_by_acl(problem) -- Valkey's words, and Redis's
    return find(problem, 'ACL failure in script', 1, true) or find(problem, 'The user executing the script', 1, true)
end

local function wrong_type(use, key)
    local what = denied(use, key)
    if what then return DENIED, what end
    local known, kind = hashes[key], types[key]
    if known == 'hash' then
        kind = known
    elseif known == 'hash or none' and use == 'hash' then
        kind = 'none'
    elseif not kind then
        kind = call('TYPE', key).ok
        types[key] = kind
    end
    if kind == 'none' then
        kind = claimed[key] or use
        claimed[key], noted = use, true
    end
    if kind ~= use then return INVALID, "key '" .. key .. "' is a " .. kind .. ', not a ' .. use end
    if types[key] == 'hash' then hashes[key] = 'hash' end
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
    call('HINCRBY', key, field, text(sum))
    hashes[key] = 'hash'
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

-- Validation. Plans what is to be done when all of the unit is found good, and adds to the tallies, noting in
-- `undo` how to take that back.

local plan, planned = {}, 0 -- functions, each with three arguments
local marks, versions, roomy = {}, {}, {}

local function later(step, a, b, c)
    local place = planned
    plan[place + 1], plan[place + 2], plan[place + 3], plan[place + 4] = step, a, b or false, c or false
    planned = place + 4
end

local set_fields, count_in, clear, delete_fields, expire, add_entry, set_mark, write_record

-- The key, and fields of it, stand at first to last.
local function read_fields(values, first, last)
    local key = values[first]
    if tallies[key] then
        for i = first + 1, last do flush_field(key, values[i]) end
    end
    if last - first < MAX_ARGS then return try('HMGET', unpack(values, first, last)) end
    local found = {}
    for i = first + 1, last, MAX_ARGS do
        local part = try('HMGET', key, unpack(values, i, min(last, i + MAX_ARGS - 1)))
        if part.err then return part end
        for j = 1, #part do found[#found + 1] = part[j] end
    end
    return found
end

-- Of a wrong type HMGET answers an error, which is no value: the handler runs again and meets it.
local function unreadable(key, found)
    if refused_by_acl(found.err) then return DENIED, 'HMGET on ' .. key end
    return CONFLICT
end

local function no_integer(key, field, stored)
    return INVALID, 'field ' .. shown(field) .. " of key '" .. key .. "' holds " .. shown(stored) .. ', not a 64-bit integer'
end

local function overflow(key, field)
    return INVALID, 'field ' .. shown(field) .. " of key '" .. key .. "' would overflow 64 bits"
end

local function note_hash(key, found)
    if hashes[key] == 'hash' then return end
    for i = 1, #found do
        if found[i] then
            hashes[key] = 'hash'
            return
        end
    end
    hashes[key] = 'hash or none'
end

local function check_tallied(values, at)
    local key = values[at + 2]
    if hashes[key] ~= 'hash' then
        local status, reason = wrong_type('hash', key)
        if status then return status, reason end
        later(count_in, key)
    end
    for i = at + 3, at + values[at] - 1, 2 do
        local field = values[i]
        local tally, stored = tally_of(key, field)
        if not tally then return no_integer(key, field, stored) end
        local before = tally.sum
        local sum = plus(before, values[i + 1])
        if not fits(plus(tally.base, sum)) then return overflow(key, field) end
        local place = undone
        undo[place + 1], undo[place + 2], undo[place + 3] = tally, before, tally.touched
        undone = place + 3
        tally.sum, tally.touched = sum, true
    end
end

-- Reads everything the unit needs of one hash in one call. Behind the last field that is read stands what HSET
-- shall write, and the key takes that field's place; conditional writes stand last, those that lose are left out.
local function check_hash(values, at)
    local reads, latest, increments, more = values[at + 1], values[at + 2], values[at + 3], values[at + 4]
    if not reads then return check_tallied(values, at) end
    local first, stop = at + 5 + reads, at + values[at] - 1
    local key, raised = values[first], more and more[1] or 0
    local wanted = reads + latest + raised + increments
    local last, found = first + wanted, nil
    if wanted > 0 then
        local what = not hashes[key] and denied('hash', key)
        if what then return DENIED, what end
        found = read_fields(values, first, last)
        if found.err then
            if reads > 0 then return unreadable(key, found) end
            if refused_by_acl(found.err) then return DENIED, 'HMGET on ' .. key end
        else
            for i = 1, reads do
                if found[i] ~= values[at + 4 + i] then return CONFLICT end
            end
            note_hash(key, found)
        end
    end
    if hashes[key] ~= 'hash' then
        local status, reason = wrong_type('hash', key)
        if status then return status, reason end
    end
    local place = last + 1
    for i = wanted - increments + 1, wanted do
        local stored = found[i] or '0'
        if not canonical(stored) then return no_integer(key, values[place], stored) end
        local sum = plus(number(stored), values[place + 1])
        if not fits(sum) then return overflow(key, values[place]) end
        values[place + 1] = text(sum)
        place = place + 2
    end
    place = stop - 4 * latest - 2 * raised + 1
    local free = place
    for i = reads + latest + 1, wanted - increments do
        local field, least, stored = values[place], values[place + 1], found[i]
        if stored and not canonical(stored) then return no_integer(key, field, stored) end
        if not stored or less(number(stored), number(least)) then
            values[free], values[free + 1] = field, least
            free = free + 2
        end
        place = place + 2
    end
    for i = reads + 1, reads + latest do
        local version, stored = values[place + 1], found[i]
        if not stored or newer_version(version, stored) then
            values[free], values[free + 1] = values[place], version
            values[free + 2], values[free + 3] = values[place + 2], values[place + 3]
            free = free + 4
        end
        place = place + 4
    end
    if more and more[2] then later(clear, key) end
    if free > last + 1 then
        values[last] = key
        later(set_fields, values, last, free - 1)
    end
    if more and more[4] then later(delete_fields, key, more[4]) end
    if more and more[3] then later(expire, key, more[3]) end
end

local function check_emission(emission)
    local stream = emission[1]
    local status, reason = wrong_type('stream', stream)
    if status then return status, reason end
    if not roomy[stream] then
        if exhausted(stream) then return INVALID, "stream '" .. stream .. "' can take no more entries: its last id is the greatest" end
        roomy[stream] = true
    end
    later(add_entry, emission)
end

local check_others

local function check_branch(branch)
    local kind, subject, ttl, its = branch[1], branch[2], branch[3], branch[4]
    noted = true
    if kind == ONCE then
        local what = denied('mark', subject)
        if what then return DENIED, what end
        local stands = marks[subject] or call('EXISTS', subject) == 1
        marks[subject] = true
        if stands then return end
        later(set_mark, subject, ttl)
    else
        local key, version = subject[1], subject[3]
        local status, reason = wrong_type('hash', key)
        if status then return status, reason end
        flush_field(key, 'version')
        local stored = versions[key] or call('HGET', key, 'version')
        if stored and not newer_version(version, stored) then return end
        versions[key] = version
        later(write_record, subject, ttl)
    end
    local at = 1
    while its[at] do
        local status, reason = check_hash(its, at)
        if status then return status, reason end
        at = at + its[at]
    end
    return check_others(branch[5], branch[6])
end

function check_others(emissions, branches)
    for i = 1, emissions and #emissions or 0 do
        local status, reason = check_emission(emissions[i])
        if status then return status, reason end
    end
    for i = 1, branches and #branches or 0 do
        local status, reason = check_branch(branches[i])
        if status then return status, reason end
    end
end

-- Reads that changed matter more than whatever else is wrong: the handler decided on them.
local function check_unit(at, stop, rest)
    local status, reason
    while at < stop do
        local size, reads = batch[at], batch[at + 1]
        if not status or reads and reads > 0 then
            local found, why = check_hash(batch, at)
            if found == CONFLICT then return CONFLICT end
            if not status then status, reason = found, why end
        end
        at = at + size
    end
    if status or not rest then return status, reason end
    return check_others(rest[1], rest[2])
end

-- Application: nothing here may fail.

local stream, id -- of the unit in hand

-- The key, then fields and values, stand at first to last.
function set_fields(values, first, last)
    local key = values[first]
    if tallies[key] then
        for i = first + 1, last, 2 do flush_field(key, values[i]) end
    end
    if last - first < MAX_ARGS then
        call('HSET', unpack(values, first, last))
    else
        for i = first + 1, last, MAX_ARGS do
            call('HSET', key, unpack(values, i, min(last, i + MAX_ARGS - 1)))
        end
    end
    hashes[key] = 'hash'
end

function count_in(key) hashes[key] = 'hash' end -- written with the tallies

function clear(key)
    flush(key)
    call('DEL', key)
    hashes[key], types[key] = true, 'none'
end

function delete_fields(key, fields)
    flush(key) -- what is still to be written may keep the key, and its time to live
    for i = 1, #fields, MAX_ARGS do
        call('HDEL', key, unpack(fields, i, min(#fields, i + MAX_ARGS - 1)))
    end
    hashes[key], types[key] = true, nil
end

function expire(key, ttl)
    flush(key)
    call('PEXPIRE', key, ttl)
end

function add_entry(emission)
    local log, maxlen, fields = emission[1], emission[2], emission[3]
    if maxlen then
        call('XADD', log, 'MAXLEN', '~', maxlen, '*', unpack(fields))
    else
        call('XADD', log, '*', unpack(fields))
    end
    types[log] = 'stream'
    if hashes[log] then hashes[log] = true end
end

function set_mark(mark, ttl) call('SET', mark, id, 'NX', 'PX', ttl) end

function write_record(record, ttl)
    flush(record[1])
    set_fields(record, 1, #record)
    call('PEXPIRE', record[1], ttl)
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

local function refused(status, reason)
    take_back()
    if #call('XPENDING', stream, group, id, id, 1) == 0 then return SETTLED end
    if status == CONFLICT then return CONFLICT end
    return { status, reason }
end

local function process(at)
    local rest, changes = batch[at + 3], batch[at + 4]
    local dedupe = rest and rest[3]
    local status, reason
    if dedupe then
        local what = denied('mark', dedupe[1])
        if what then return refused(DENIED, what) end
        if call('EXISTS', dedupe[1]) == 1 then
            call('XACK', stream, group, id)
            return SETTLED
        end
    end
    local first = at + 5
    status, reason = check_unit(first + 4 * changes, at + batch[at], rest)
    if not status and changes > 0 and presence_impossible() then status, reason = DENIED, presence_reason end
    if status then return refused(status, reason) end
    if call('XACK', stream, group, id) == 0 then
        take_back()
        return SETTLED
    end
    acknowledged = true
    for i = 1, planned, 4 do plan[i](plan[i + 1], plan[i + 2], plan[i + 3]) end
    if dedupe and dedupe[2] then call('SET', dedupe[1], id, 'PX', dedupe[2]) end
    for i = first, first + 4 * changes - 1, 4 do
        presence_changes[#presence_changes + 1] = { batch[i], batch[i + 1], batch[i + 2], batch[i + 3] }
    end
    return COMMITTED
end

-- The group must exist: XACK answers 0 without it, which must not be read as "settled".
for _, stream in ipairs(streams) do
    local proof = try('XPENDING', stream, group, '-', '+', '1')
    if proof.err then return proof end
    if not may('XACK', stream, group, '0-1') then
        return redis.error_reply('NOPERM this user has no permissions to run XACK on ' .. stream)
    end
end
local kept = try('HGET', checkpoint_key, 'f')
if type(kept) == 'table' and kept.err then return kept end
if not may('HSET', checkpoint_key, 'f', 'v') then
    return redis.error_reply('NOPERM this user has no permissions to run HSET on ' .. checkpoint_key)
end

local answers, settled, at = {}, {}, 2
while batch[at] do
    stream, id = batch[at + 1], batch[at + 2]
    undone, planned, acknowledged = 0, 0, false
    if noted then marks, versions, claimed, noted = {}, {}, {}, false end
    local ok, answer = pcall(process, at)
    if not ok then
        local problem = type(answer) == 'table' and answer.err or tostring(answer)
        if acknowledged then
            answer = { BROKEN, problem }
        else
            answer = refused(refused_by_acl(problem) and DENIED or INVALID, problem)
        end
    end
    answers[#answers + 1] = answer
    if answer == COMMITTED or answer == SETTLED then settled[stream] = true end
    at = at + batch[at]
end
for key in pairs(tallies) do flush(key) end

local function change_presence()
    local now_ms = presence_now()
    local changed = observe_presence(now_ms, presence[1], presence_changes)
    announce_presence(presence[2], presence[3], presence[4], now_ms, changed)
end
if #presence_changes > 0 then
    local ok, problem = pcall(change_presence)
    at = 2
    for i = 1, ok and 0 or #answers do
        if batch[at + 4] > 0 and answers[i] == COMMITTED then
            answers[i] = { BROKEN, type(problem) == 'table' and problem.err or tostring(problem) }
        end
        at = at + batch[at]
    end
end

-- The checkpoint: everything up to an id is settled; '(' means everything before it. When nothing is
-- pending that is all that was delivered, which the last entry settled need not be. A group that was set
-- back is given entries again: then it is not beyond those that were, whatever is still pending after them.
local function last_delivered(stream)
    for _, listed in ipairs(try('XINFO', 'GROUPS', stream)) do
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
answers[#answers + 1] = math.floor(microseconds() - begun)
return answers
