#!lua flags=allow-oom
-- Mends the group's count of read entries where it has read everything: XINFO's lag stays wrong for
-- ever after unread entries were trimmed, and scalers read the same number.
--
-- KEYS[1]: stream. ARGV[1]: group. Reply: 1 if it was mended.
local stream, group = KEYS[1], ARGV[1]
local info = fields_of(redis.call('XINFO', 'STREAM', stream))
for _, listed in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local found = fields_of(listed)
    if found['name'] == group and found['last-delivered-id'] == info['last-generated-id'] and found['lag'] ~= 0 then
        redis.call('XGROUP', 'SETID', stream, group, found['last-delivered-id'], 'ENTRIESREAD', info['entries-added'])
        return 1
    end
end
return 0
