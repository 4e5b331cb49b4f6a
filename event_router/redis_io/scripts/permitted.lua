#!lua flags=no-writes
-- Which commands this user may not run: a dry run that needs no permission of its own and leaves no ACL LOG.
--
-- ARGV[1]: msgpack array of commands, each an array of words. Reply: the places of those refused, from 1 on.
local refused = {}
for place, command in ipairs(cmsgpack.unpack(ARGV[1])) do
    local known, allowed = pcall(redis.acl_check_cmd, unpack(command))
    if not known or not allowed then refused[#refused + 1] = place end
end
return refused
