#!lua flags=no-writes
-- Where an entry is, at one moment.
--
-- KEYS[1]: stream. ARGV: group, id.
-- Reply: {server ms, length, last generated id, first id or '', fields or false, greatest deleted id,
--   1 if the group exists, last delivered id, {consumer, idle ms, deliveries} if it is pending, idle ms of that consumer
--   or -1, 1 if the stream has as many entries as were ever added}
local stream, group, id = KEYS[1], ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
if redis.call('EXISTS', stream) == 0 then return { now, 0, '0-0', '', false, '0-0', 0, '0-0', {}, -1, 1 } end
local info = fields_of(redis.call('XINFO', 'STREAM', stream))
local first = info['first-entry'] and info['first-entry'][1] or ''
local found = redis.call('XRANGE', stream, id, id)[1]
local exists, delivered, pending, consumer_idle = 0, '0-0', {}, -1
for _, listed in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local about = fields_of(listed)
    if about['name'] == group then
        exists, delivered = 1, about['last-delivered-id']
        local held = redis.call('XPENDING', stream, group, id, id, '1')[1]
        if held then
            pending = { held[2], held[3], held[4] }
            for _, one in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
                local consumer = fields_of(one)
                if consumer['name'] == held[2] then consumer_idle = consumer['idle'] end
            end
        end
    end
end
return { now, info['length'], info['last-generated-id'], first, found and found[2] or false,
    info['max-deleted-entry-id'] or '0-0', exists, delivered, pending, consumer_idle,
    info['entries-added'] == info['length'] and 1 or 0 }
