#!lua
-- Takes over pending entries without counting a start (JUSTID), and returns them with their fields.
--
-- KEYS[1]: stream. ARGV: group, consumer, owner ('' for any), min idle ms, start id, end id, count.
-- Reply: {last id looked at or '', {id, deliveries, fields or false}...}; false: trimmed from the
-- stream, left pending (XCLAIM would drop it from the pending list unseen).
local stream, group, consumer, owner = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local MAX_BYTES = 8 * 1024 * 1024
local listing = { 'XPENDING', stream, group, 'IDLE', ARGV[4], ARGV[5], ARGV[6], ARGV[7] }
if owner ~= '' then listing[#listing + 1] = owner end
local pending = redis.call(unpack(listing))
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
if #pending < tonumber(ARGV[7]) then last = '' end
return { last, taken }
