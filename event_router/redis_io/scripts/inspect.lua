#!lua flags=no-writes
-- The figures of a group on a stream, at one moment.
--
-- KEYS: stream, dead-letter stream. ARGV[1]: group.
-- Reply: {server ms, length, last generated id, entries added, first id, exists,
--   pending, lowest pending id, last delivered id, entries read or -1, lag or -1, first undelivered id, consumers, dead letters,
--   {consumer, its pending entries, ...}, of the 50 consumers with most}
local stream, letters, group = KEYS[1], KEYS[2], ARGV[1]
local time = redis.call('TIME')
local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
local dead = 0
if redis.call('TYPE', letters).ok == 'stream' then dead = redis.call('XLEN', letters) end
if redis.call('EXISTS', stream) == 0 then
    return { now, 0, '0-0', 0, '', 0, 0, '', '0-0', -1, -1, '', 0, dead, {} }
end
local function holders()
    local listed = redis.call('XPENDING', stream, group)[4] or {}
    table.sort(listed, function(a, b) return tonumber(a[2]) > tonumber(b[2]) end)
    local found = {}
    for i = 1, math.min(#listed, 50) do
        found[#found + 1] = listed[i][1]
        found[#found + 1] = listed[i][2]
    end
    return found
end
local info = fields_of(redis.call('XINFO', 'STREAM', stream))
local first = info['first-entry'] and info['first-entry'][1] or ''
for _, listed in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local found = fields_of(listed)
    if found['name'] == group then
        local lowest, next_id = '', ''
        local pending = redis.call('XPENDING', stream, group, '-', '+', '1')
        if pending[1] then lowest = pending[1][1] end
        local delivered = found['last-delivered-id']
        if delivered ~= info['last-generated-id'] then
            local undelivered = redis.call('XRANGE', stream, '(' .. delivered, '+', 'COUNT', '1')
            if undelivered[1] then next_id = undelivered[1][1] end
        end
        return { now, info['length'], info['last-generated-id'], info['entries-added'] or -1, first, 1, found['pending'], lowest, delivered,
            found['entries-read'] or -1, found['lag'] or -1, next_id, found['consumers'], dead, holders() }
    end
end
return { now, info['length'], info['last-generated-id'], info['entries-added'] or -1, first, 0, 0, '', '0-0', -1, -1, first, 0, dead, {} }
