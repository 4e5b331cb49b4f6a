#!lua flags=allow-oom
-- Counts a gap once, whoever sees it: entries that were trimmed before the group read them.
--
-- KEYS[1]: checkpoint key. ARGV: stream, last id delivered before the gap, entries in it so far.
-- Reply: how many of them nobody has counted yet. Kept in the field '{stream} trimmed' as '{id} {entries}'.
local field, delivered, entries = ARGV[1] .. ' trimmed', ARGV[2], tonumber(ARGV[3])
local before, counted = string.match(redis.call('HGET', KEYS[1], field) or '', '^(%S+) (%d+)$')
counted = before == delivered and tonumber(counted) or 0
if entries <= counted then return 0 end
redis.call('HSET', KEYS[1], field, delivered .. ' ' .. ARGV[3])
return entries - counted
