#!lua flags=allow-oom
-- Removes consumers that have nothing pending, in one step: DELCONSUMER destroys pending entries.
--
-- KEYS[1]: stream. ARGV: group, least idle ms, the one consumer to consider or '', one to keep or ''.
-- Reply: the names removed.
local stream, group, idle, only, keep = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local removed = {}
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
    local fields = fields_of(consumer)
    if fields['pending'] == 0 and fields['idle'] >= idle and fields['name'] ~= keep
        and (only == '' or fields['name'] == only) then
        redis.call('XGROUP', 'DELCONSUMER', stream, group, fields['name'])
        removed[#removed + 1] = fields['name']
    end
end
return removed
