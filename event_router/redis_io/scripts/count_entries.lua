#!lua flags=no-writes
-- Counts the entries of a part of a stream, a bounded number at a time.
--
-- KEYS[1]: stream. ARGV: first id, last id (as XRANGE takes them), most to count. Reply: {how many, id of the last}.
local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[2], 'COUNT', ARGV[3])
return { #found, #found > 0 and found[#found][1] or '' }
