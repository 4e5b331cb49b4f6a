#!lua flags=allow-oom
-- Trims what every group of the stream has settled, never below a length, a bounded part at a time.
--
-- KEYS[1]: stream. ARGV: least length, most entries to trim, the group without which nothing goes. Reply: entries trimmed.
local stream, floor, most, own = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
if redis.call('EXISTS', stream) == 0 then return 0 end
local spare = redis.call('XLEN', stream) - floor
if spare <= 0 then return 0 end
local lowest, owned
for _, group in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local fields = fields_of(group)
    if fields['name'] == own then owned = true end
    local id = fields['last-delivered-id']
    local pending = redis.call('XPENDING', stream, fields['name'], '-', '+', '1')
    if pending[1] then id = pending[1][1] end
    if not lowest or id_after(lowest, id) then lowest = id end
end
if not owned then return 0 end -- destroyed or not yet made: then it begins anew, and needs what others have settled
return redis.call('XTRIM', stream, 'MINID', '~', lowest, 'LIMIT', math.min(spare, most))
