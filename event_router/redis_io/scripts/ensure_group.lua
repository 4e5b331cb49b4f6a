#!lua flags=allow-oom
-- Creates the group where it is missing: at the checkpoint, else at the beginning; never at the end.
--
-- KEYS: stream, checkpoint hash. ARGV: group.
-- Reply: {'exists'} or {'created', id it starts behind, entries beyond that id, 1 if a checkpoint was known}.
local stream, checkpoint_key, group = KEYS[1], KEYS[2], ARGV[1]
local MOST, PAGE = 10000, 100 -- entries counted, and at a time: they may be large


local function minus_one(digits) -- as text: Lua's numbers are doubles
    local head, digit, zeros = string.match(digits, '^(%d-)([1-9])(0*)$')
    return string.match(head .. (digit - 1) .. string.rep('9', #zeros), '^0*(%d+)$')
end

local function start_of(checkpoint)
    local before, ms, seq = string.match(checkpoint, '^(%(?)(%d+)-(%d+)$')
    if not ms then return '0-0' end
    if before == '' then return ms .. '-' .. seq end
    if seq ~= '0' then return ms .. '-' .. minus_one(seq) end
    if ms ~= '0' then return minus_one(ms) .. '-18446744073709551615' end
    return '0-0'
end

local function entries_beyond(start)
    if start == '0-0' then return redis.call('XLEN', stream) end
    local count, last = 0, start
    repeat
        local page = redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', PAGE)
        count = count + #page
        if page[1] then last = page[#page][1] end
    until #page < PAGE or count >= MOST
    return count
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
local start = start_of(stored or '')
if id_after(start, last) then start = '0-0' end -- a checkpoint ahead of the stream is another stream's
redis.call('XGROUP', 'CREATE', stream, group, start, 'MKSTREAM')
return { 'created', start, entries_beyond(start), stored and 1 or 0 }
