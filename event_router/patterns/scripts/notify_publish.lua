#!lua
-- Publishes one message on several channels, on all or none.
--
-- ARGV: message, channels. Reply: how many received it on each.
local receivers = {}
for i = 2, #ARGV do
    if not redis.acl_check_cmd('PUBLISH', ARGV[i], '') then
        return redis.error_reply('NOPERM this user may not publish on ' .. ARGV[i])
    end
end
for i = 2, #ARGV do receivers[#receivers + 1] = redis.call('PUBLISH', ARGV[i], ARGV[1]) end
return receivers
