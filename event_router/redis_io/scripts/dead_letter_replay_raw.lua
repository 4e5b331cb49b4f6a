#!lua flags=allow-oom
-- The steps around the XADD of a dead letter with more fields than a script can XADD itself. The client
-- calls `look`, then in one transaction `note`, XADD, `settle`. A transaction goes on after a command that
-- fails, so `settle` deletes the letter only where XADD has moved the stream's last id.
--
-- KEYS: dead letters, stream, marker
-- ARGV: step, id of the letter
local function last_id()
    local info = redis.pcall('XINFO', 'STREAM', KEYS[2])
    if info.err then
        return ''
    end
    for position = 1, #info, 2 do
        if info[position] == 'last-generated-id' then
            return info[position + 1]
        end
    end
end

if ARGV[1] == 'look' then
    if not redis.acl_check_cmd('XDEL', KEYS[1], ARGV[2]) then
        return redis.error_reply('NOPERM this user may not XDEL from ' .. KEYS[1])
    end
    return #redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])
end
if ARGV[1] == 'note' then
    return redis.call('SET', KEYS[3], last_id())
end
local moved = redis.call('GET', KEYS[3]) ~= last_id()
redis.call('DEL', KEYS[3])
if moved then
    redis.call('XDEL', KEYS[1], ARGV[2])
end
return moved and 1 or 0
