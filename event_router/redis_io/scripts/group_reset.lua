#!lua
-- Sets a group's position and its checkpoint, both or neither. Safe to send again.
--
-- KEYS: stream, checkpoint hash.
-- ARGV: group, id to be the last delivered one, entries read up to it or '', the last delivered id that was seen or ''
--   for any, idle ms below which a consumer is active or '' to let them be.
-- Reply: {'done'}, {'missing'}, {'moved', last delivered id}, or {'active', consumer...}; only 'done' has written.
local stream, checkpoint_key = KEYS[1], KEYS[2]
local group, position, read, seen, active = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
if redis.call('EXISTS', stream) == 0 then return { 'missing' } end
local delivered
for _, listed in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local found = fields_of(listed)
    if found['name'] == group then delivered = found['last-delivered-id'] end
end
if not delivered then return { 'missing' } end
if seen ~= '' and delivered ~= seen and delivered ~= position then return { 'moved', delivered } end
if active then
    local names = { 'active' }
    for _, one in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
        local consumer = fields_of(one)
        if consumer['idle'] < active then names[#names + 1] = consumer['name'] end
    end
    if names[2] then return names end
end
-- Everything that may be refused comes before the first write.
local kind = redis.call('TYPE', checkpoint_key).ok
if kind ~= 'hash' and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. checkpoint_key .. ' is a ' .. kind .. ' where the checkpoint should be')
end
local set = { 'XGROUP', 'SETID', stream, group, position }
if read ~= '' then
    set[6] = 'ENTRIESREAD'
    set[7] = read
end
for _, command in ipairs({ set, { 'HSET', checkpoint_key, stream, position } }) do
    if not redis.acl_check_cmd(unpack(command)) then
        return redis.error_reply('NOPERM this user has no permissions to run ' .. command[1] .. ' on ' .. stream)
    end
end
local settled = position
local pending = redis.call('XPENDING', stream, group, '-', '+', '1')[1]
if pending and not id_after(pending[1], position) then settled = '(' .. pending[1] end
redis.call(unpack(set))
redis.call('HSET', checkpoint_key, stream, settled)
return { 'done' }
