#!lua
-- Creates the group where it is missing: at the checkpoint, else at the beginning; never at the end.
--
-- KEYS: stream, checkpoint hash. ARGV: group.
-- Reply: {'exists'} or {'created', id it starts behind, entries beyond that id, 1 if a checkpoint was known}.
local stream, checkpoint_key, group = KEYS[1], KEYS[2], ARGV[1]
local function id_less(a, b)
    local a_ms, a_seq = string.match(a, '^(%d+)-(%d+)$')
    local b_ms, b_seq = string.match(b, '^(%d+)-(%d+)$')
    if a_ms == b_ms then a_ms, b_ms = a_seq, b_seq end
    if #a_ms ~= #b_ms then return #a_ms < #b_ms end
    return a_ms < b_ms
end
local last = '0-0'
if redis.call('EXISTS', stream) == 1 then
    for _, known in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
        for i = 1, #known, 2 do
            if known[i] == 'name' and known[i + 1] == group then return { 'exists' } end
        end
    end
    local info = redis.call('XINFO', 'STREAM', stream)
    for i = 1, #info, 2 do
        if info[i] == 'last-generated-id' then last = info[i + 1] end
    end
end
local stored = redis.call('HGET', checkpoint_key, stream)
local start = stored or '0-0'
if string.sub(start, 1, 1) == '(' then
    local ms, seq = string.match(start, '^%((%d+)-(%d+)$')
    if seq ~= '0' and #seq <= 15 then
        start = ms .. '-' .. string.format('%.0f', tonumber(seq) - 1)
    elseif seq ~= '0' then -- too long for a double: the whole millisecond counts again
        start = string.format('%.0f', tonumber(ms) - 1) .. '-18446744073709551615'
    elseif ms ~= '0' and #ms <= 15 then
        start = string.format('%.0f', tonumber(ms) - 1) .. '-18446744073709551615'
    else
        start = '0-0'
    end
end
if id_less(last, start) then start = '0-0' end -- a checkpoint ahead of the stream is another stream's
redis.call('XGROUP', 'CREATE', stream, group, start, 'MKSTREAM')
local beyond = 0
if stored and start ~= '0-0' then
    beyond = #redis.call('XRANGE', stream, '(' .. start, '+', 'COUNT', 10000)
elseif redis.call('EXISTS', stream) == 1 then
    beyond = redis.call('XLEN', stream)
end
return { 'created', start, beyond, stored and 1 or 0 }
