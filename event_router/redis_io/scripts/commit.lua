#!lua
-- Commits a batch: for each unit of work validate, acknowledge, apply; never one in part.
--
-- ARGV[1]: msgpack array {group, checkpoint key, streams, units}; all values are text.
--   unit: {index of its stream, entry id, reads or false, ops}
--   reads: flat {key, field, value as read or false, ...}
--   ops: arrays that begin with a code and a key, see below
-- Reply: one answer a unit: 1 committed, 0 settled before, 2 conflict, {3, reason} invalid,
--   {4, what} denied by the ACL, {5, error} failed after the acknowledgement (never expected).
-- NOGROUP ends the script with nothing written. Times: PX in milliseconds.
local SET, INCREMENT, LATEST, MAXIMUM, DELETE, CLEAR, EXPIRE, ADD, ONCE, NEWEST = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
local COMMITTED, SETTLED, CONFLICT, INVALID, DENIED, BROKEN = 1, 0, 2, 3, 4, 5
local MAX_ARGS = 6000 -- unpack fails at about 8,000 values

local call, unpack, match, find, format = redis.call, unpack, string.match, string.find, string.format
local batch = cmsgpack.unpack(ARGV[1])
local group, checkpoint_key, streams, units = batch[1], batch[2], batch[3], batch[4]

-- Integers. Lua's numbers are doubles: up to 15 digits they are exact, beyond that text is used.

local function canonical(s)
    if not find(s, '^-?[1-9]%d*$') then return s == '0' end
    local digits = match(s, '%d+')
    if #digits ~= 19 then return #digits < 19 end
    return digits <= (#s == 20 and '9223372036854775808' or '9223372036854775807')
end

local function number(s)
    if #s <= 15 then return tonumber(s) end
    return s
end

local function text(n)
    if type(n) == 'string' then return n end
    return format('%.0f', n)
end

local function magnitude_less(a, b)
    if #a ~= #b then return #a < #b end
    return a < b
end

local function add_digits(a, b, sign) -- a + sign * b, for a not below b when sign is -1
    local out, carry, i, j = {}, 0, #a, #b
    while i > 0 or j > 0 or carry > 0 do
        local sum = carry + (i > 0 and a:byte(i) - 48 or 0) + sign * (j > 0 and b:byte(j) - 48 or 0)
        carry = math.floor(sum / 10)
        out[#out + 1] = string.char(48 + sum % 10)
        i, j = i - 1, j - 1
        if i <= 0 and j <= 0 and carry < 0 then break end
    end
    local digits = string.reverse(table.concat(out))
    return match(digits, '^0*(%d+)$')
end

local function plus(a, b)
    if type(a) == 'number' and type(b) == 'number' then
        local sum = a + b
        if sum > -1e15 and sum < 1e15 then return sum end
        return format('%.0f', sum)
    end
    a, b = text(a), text(b)
    local a_negative, b_negative = a:byte(1) == 45, b:byte(1) == 45
    local x, y = match(a, '%d+'), match(b, '%d+')
    local negative, digits = a_negative, nil
    if a_negative == b_negative then
        digits = add_digits(x, y, 1)
    elseif magnitude_less(x, y) then
        negative, digits = b_negative, add_digits(y, x, -1)
    else
        digits = add_digits(x, y, -1)
    end
    if digits == '0' then return 0 end
    return number(negative and '-' .. digits or digits)
end

local function fits(n)
    return type(n) == 'number' or canonical(n)
end

local function less(a, b)
    if type(a) == 'number' and type(b) == 'number' then return a < b end
    a, b = text(a), text(b)
    local a_negative, b_negative = a:byte(1) == 45, b:byte(1) == 45
    if a_negative ~= b_negative then return a_negative end
    local x, y = match(a, '%d+'), match(b, '%d+')
    if a_negative then x, y = y, x end
    return magnitude_less(x, y)
end

-- Versions: numbers joined by ':' or '-', then '@' and text. Lua compares text by locale: use bytes.

local function bytes_greater(a, b)
    for i = 1, math.min(#a, #b) do
        local x, y = a:byte(i), b:byte(i)
        if x ~= y then return x > y end
    end
    return #a > #b
end

local function newer(a, b)
    while true do
        local x, mark, a_rest = match(a, '^(%d+)([:@-])(.*)$')
        local y, _, b_rest = match(b, '^(%d+)([:@-])(.*)$')
        if not x or not y then return bytes_greater(a, b) end
        if x ~= y then return magnitude_less(y, x) end
        a, b = a_rest, b_rest
        if mark == '@' then return bytes_greater(a, b) end
    end
end

-- Permissions and key types, asked once a batch for each kind of key.

local SAMPLES = {
    hash = { { 'HSET', 'f', 'v' }, { 'HINCRBY', 'f', '1' }, { 'HDEL', 'f' }, { 'HGET', 'f' }, { 'DEL' }, { 'PEXPIRE', '1' }, { 'TYPE' } },
    stream = { { 'XADD', '*', 'f', 'v' }, { 'TYPE' } },
    mark = { { 'SET', 'v', 'NX', 'PX', '1' }, { 'EXISTS' } },
}
local asked, types = { hash = {}, stream = {}, mark = {} }, {}
local claimed = {} -- what the unit makes of keys that do not exist yet

local function denied(use, key)
    local class = match(key, '^[^:]*:[^:]*:') or key
    local answer = asked[use][class]
    if answer == nil then
        answer = false
        for _, sample in ipairs(SAMPLES[use]) do
            if not redis.acl_check_cmd(sample[1], key, unpack(sample, 2)) then
                answer = sample[1] .. ' on ' .. key
                break
            end
        end
        if use == 'stream' and not redis.acl_check_cmd('XINFO', 'STREAM', key) then answer = 'XINFO on ' .. key end
        asked[use][class] = answer
    end
    return answer
end

local function refused_by_acl(problem) -- Valkey's words, and Redis's
    return find(problem, 'ACL failure in script', 1, true) or find(problem, 'The user executing the script', 1, true)
end

local function wrong_type(use, key)
    local kind = types[key]
    if not kind then
        local what = denied(use, key)
        if what then return DENIED, what end
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

local tallies, undo = {}, {}

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

-- Validation. Decides conditions (op.won) and adds to the tallies, noting in `undo` how to take it back.

local marks, versions, roomy = {}, {}, {}
local check

local function check_increments(op)
    local key = op[2]
    for i = 3, #op, 2 do
        local field, amount = op[i], number(op[i + 1])
        local tally, stored = tally_of(key, field)
        if not tally then
            return INVALID, 'field ' .. shown(field) .. " of key '" .. key .. "' holds " .. shown(stored) .. ', not a 64-bit integer'
        end
        local sum = plus(tally.sum, amount)
        if not fits(plus(tally.base, sum)) then
            return INVALID, 'field ' .. shown(field) .. " of key '" .. key .. "' would overflow 64 bits"
        end
        undo[#undo + 1] = { tally, tally.sum, tally.touched }
        tally.sum, tally.touched = sum, true
    end
end

local function check_maxima(op)
    local key = op[2]
    for i = 3, #op, 2 do
        flush_field(key, op[i])
        local stored = call('HGET', key, op[i]) or '0'
        if not canonical(stored) then
            return INVALID, 'field ' .. shown(op[i]) .. " of key '" .. key .. "' holds " .. shown(stored) .. ', not a 64-bit integer'
        end
    end
end

local function check_op(op)
    local code, key = op[1], op[2]
    if code == ONCE then
        local what = denied('mark', key)
        if what then return DENIED, what end
        op.won = not marks[key] and call('EXISTS', key) == 0
        marks[key] = true
        if op.won then return check(op[4]) end
        return
    end
    local status, reason = wrong_type(code == ADD and 'stream' or 'hash', key)
    if status then return status, reason end
    if code == INCREMENT then return check_increments(op) end
    if code == MAXIMUM then return check_maxima(op) end
    if code == ADD and not roomy[key] then
        if exhausted(key) then return INVALID, "stream '" .. key .. "' can take no more entries: its last id is the greatest" end
        roomy[key] = true
    elseif code == NEWEST then
        flush_field(key, 'version')
        local stored = versions[key] or call('HGET', key, 'version')
        op.won = not stored or newer(op[3], stored)
        if op.won then
            versions[key] = op[3]
            return check(op[6])
        end
    end
end

function check(ops)
    for i = 1, #ops do
        local status, reason = check_op(ops[i])
        if status then return status, reason end
    end
end

local function check_reads(reads)
    for i = 1, #reads, 3 do
        local key, field = reads[i], reads[i + 1]
        flush_field(key, field)
        if not types[key] then
            local what = denied('hash', key)
            if what then return DENIED, what end
        end
        -- Of a wrong type HGET answers an error, which is no value: the handler runs again and meets it.
        local value = redis.pcall('HGET', key, field)
        if value ~= reads[i + 2] then
            if type(value) == 'table' and refused_by_acl(value.err) then return DENIED, 'HGET on ' .. key end
            return CONFLICT
        end
        if not types[key] then types[key] = 'hash or none' end
        if types[key] ~= 'hash' then claimed[key] = 'hash' end
    end
end

-- Application: nothing here may fail.

local apply

local function in_chunks(command, op, first, step)
    if #op - first < MAX_ARGS then
        call(command, op[2], unpack(op, first))
        return
    end
    for i = first, #op, MAX_ARGS - MAX_ARGS % step do
        call(command, op[2], unpack(op, i, math.min(#op, i + MAX_ARGS - MAX_ARGS % step - 1)))
    end
end

local function flush_fields(op, step)
    local key = op[2]
    if tallies[key] then
        for i = 3, #op, step do flush_field(key, op[i]) end
    end
end

local function apply_latest(op)
    local key = op[2]
    for i = 3, #op, 3 do
        local field, version = op[i], op[i + 1]
        flush_field(key, field .. ':version')
        local stored = call('HGET', key, field .. ':version')
        if not stored or newer(version, stored) then
            call('HSET', key, field, op[i + 2], field .. ':version', version)
        end
    end
end

-- SET followed by LATEST on the same key, the usual pair, in one HSET; false where it must be two.
local function apply_together(set, latest)
    local key = set[2]
    if #set + #latest * 2 > MAX_ARGS then return false end
    local versions_of = {}
    for i = 3, #latest, 3 do versions_of[latest[i] .. ':version'] = true end
    for i = 3, #set, 2 do
        if versions_of[set[i]] then return false end
    end
    for i = 3, #latest, 3 do
        if versions_of[latest[i]] then return false end
    end
    flush_fields(set, 2)
    flush_fields(latest, 3)
    for i = 3, #latest, 3 do
        local field, version = latest[i] .. ':version', latest[i + 1]
        flush_field(key, field)
        local stored = call('HGET', key, field)
        if not stored or newer(version, stored) then
            local n = #set
            set[n + 1], set[n + 2], set[n + 3], set[n + 4] = latest[i], latest[i + 2], field, version
        end
    end
    call('HSET', unpack(set, 2))
    types[key] = 'hash'
    return true
end

local function apply_maxima(op)
    for i = 3, #op, 2 do
        local stored = call('HGET', op[2], op[i])
        if not stored or not canonical(stored) or less(number(stored), number(op[i + 1])) then call('HSET', op[2], op[i], op[i + 1]) end
    end
end

local function apply_add(op)
    if op[3] then
        call('XADD', op[2], 'MAXLEN', '~', op[3], '*', unpack(op, 4))
    else
        call('XADD', op[2], '*', unpack(op, 4))
    end
    types[op[2]] = 'stream'
end

local function apply_op(op, id)
    local code, key = op[1], op[2]
    if code == ADD then return apply_add(op) end
    if code == ONCE then
        if op.won then
            call('SET', key, id, 'NX', 'PX', op[3])
            apply(op[4], id)
        end
        return
    elseif code == CLEAR then
        flush(key)
        call('DEL', key)
        types[key] = 'none'
        return
    elseif code == DELETE then
        flush(key) -- what is still to be written may keep the key, and its time to live
        in_chunks('HDEL', op, 3, 1)
        types[key] = nil
        return
    end
    if code == SET then
        flush_fields(op, 2)
        in_chunks('HSET', op, 3, 2)
    elseif code == LATEST then
        flush_fields(op, 3)
        apply_latest(op)
    elseif code == MAXIMUM then
        apply_maxima(op)
    elseif code == EXPIRE then
        flush(key)
        call('PEXPIRE', key, op[3])
    elseif code == NEWEST and op.won then
        flush(key)
        call('HSET', key, 'version', op[3], unpack(op[5]))
        call('PEXPIRE', key, op[4])
        types[key] = 'hash'
        return apply(op[6], id)
    end
    if code ~= NEWEST and code ~= EXPIRE then types[key] = 'hash' end
end

function apply(ops, id)
    local i = 1
    while i <= #ops do
        local op, following = ops[i], ops[i + 1]
        if op[1] == INCREMENT then
            types[op[2]] = 'hash' -- written with the tallies
        elseif op[1] == SET and following and following[1] == LATEST and following[2] == op[2]
            and apply_together(op, following) then
            i = i + 1
        else
            apply_op(op, id)
        end
        i = i + 1
    end
end

local acknowledged

local function take_back()
    for i = #undo, 1, -1 do
        undo[i][1].sum, undo[i][1].touched = undo[i][2], undo[i][3]
    end
end

local function process(unit)
    local stream, id = streams[unit[1]], unit[2]
    local status, reason
    if unit[3] then status, reason = check_reads(unit[3]) end
    if not status then status, reason = check(unit[4]) end
    if status then
        take_back()
        if #call('XPENDING', stream, group, id, id, 1) == 0 then return SETTLED end
        if status == CONFLICT then return CONFLICT end
        return { status, reason }
    end
    if call('XACK', stream, group, id) == 0 then
        take_back()
        return SETTLED
    end
    acknowledged = true
    apply(unit[4], id)
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
    undo, acknowledged = {}, false
    if next(marks) then marks = {} end
    if next(versions) then versions = {} end
    if next(claimed) then claimed = {} end
    local ok, answer = pcall(process, unit)
    if not ok then
        if not acknowledged then take_back() end
        local problem = type(answer) == 'table' and answer.err or tostring(answer)
        answer = { acknowledged and BROKEN or refused_by_acl(problem) and DENIED or INVALID, problem }
    end
    answers[i] = answer
    if answer == COMMITTED or answer == SETTLED then settled[unit[1]] = true end
end
for key in pairs(tallies) do flush(key) end

-- The checkpoint: everything up to an id is settled; '(' means everything before it. When nothing is
-- pending that is all that was delivered, which the last entry settled need not be.
local function last_delivered(stream)
    for _, listed in ipairs(redis.pcall('XINFO', 'GROUPS', stream)) do
        local fields = {}
        for i = 1, #listed, 2 do fields[listed[i]] = listed[i + 1] end
        if fields['name'] == group then return fields['last-delivered-id'] end
    end
end
for index, stream in ipairs(streams) do
    local pending = call('XPENDING', stream, group, '-', '+', '1')
    if pending[1] then
        call('HSET', checkpoint_key, stream, '(' .. pending[1][1])
    elseif settled[index] then
        local id = last_delivered(stream)
        if id then call('HSET', checkpoint_key, stream, id) end
    end
end
return answers
