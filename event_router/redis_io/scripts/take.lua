#!lua flags=allow-oom
-- Takes over pending entries without counting a start (JUSTID), and returns them with their fields.
--
-- KEYS[1]: stream. ARGV: group, consumer, owner ('' for any), min idle ms, start id, count,
--   then ids: with ids just these are looked at, without the list is walked from the start id on.
-- Reply: {last id looked at or '', {id, deliveries, fields or false}...}; false: trimmed from the
-- stream, left pending (XCLAIM would drop it from the pending list unseen).
local stream, group, consumer, owner = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local MAX_BYTES = 8 * 1024 * 1024
local count = tonumber(ARGV[6])
local function listed(first, last, most)
    if owner ~= '' then return redis.call('XPENDING', stream, group, 'IDLE', ARGV[4], first, last, most, owner) end
    return redis.call('XPENDING', stream, group, 'IDLE', ARGV[4], first, last, most)
end
local pending
if ARGV[7] then
    pending = {}
    for i = 7, #ARGV do pending[#pending + 1] = listed(ARGV[i], ARGV[i], 1)[1] end
else
    pending = listed(ARGV[5], '+', count)
end
local taken, last, bytes = {}, '', 0
for _, entry in ipairs(pending) do
    local id = entry[1]
    if bytes > MAX_BYTES then return { last, taken } end
    local found = redis.call('XRANGE', stream, id, id)
    if found[1] then
        if #redis.call('XCLAIM', stream, group, consumer, ARGV[4], id, 'JUSTID') == 1 then
            taken[#taken + 1] = { id, entry[4], found[1][2] }
            for _, text in ipairs(found[1][2]) do bytes = bytes + #text end
        end
    else
        taken[#taken + 1] = { id, entry[4], false }
    end
    last = id
end
if #pending < count then last = '' end
return { last, taken }
