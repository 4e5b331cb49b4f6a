#!lua flags=allow-oom
-- Renews, schedules, hands over entries or counts their starts, only those this consumer owns and that still exist.
--
-- KEYS[1]: stream. ARGV: group, consumer, then triples: id, idle ms to set, delivery count to set
-- ('=' leaves it; a number makes it safe to send again; '>n' counts a start after n, '>>n' the same once more
-- where the answer may have been lost).
-- Reply: an integer a triple: the delivery count, -1 not this consumer's, or started by it meanwhile, -2 trimmed
-- from the stream.
-- XCLAIM of a trimmed entry would drop it from the pending list; unfenced, a zombie would steal back.
local stream, group, consumer = KEYS[1], ARGV[1], ARGV[2]
local counts = {}
for i = 3, #ARGV, 3 do
    local id, idle, count = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    local own = redis.call('XPENDING', stream, group, id, id, 1, consumer)[1]
    if not own then
        counts[#counts + 1] = -1
    elseif not redis.call('XRANGE', stream, id, id)[1] then
        counts[#counts + 1] = -2
    else
        local again, after = string.match(count, '^>(>?)(%d+)$')
        if count == '=' then count = own[4] end
        if after then
            local counted = own[4] == after + 1 and again == '>'
            count = (own[4] == tonumber(after) or counted) and after + 1
        end
        if count then redis.call('XCLAIM', stream, group, consumer, 0, id, 'IDLE', idle, 'RETRYCOUNT', count, 'JUSTID') end
        counts[#counts + 1] = tonumber(count or -1)
    end
end
return counts
