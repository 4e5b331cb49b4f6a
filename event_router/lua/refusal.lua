-- What makes writing impossible, to be asked before the first write: a script is not rolled back.
--
-- refuse(key, kind, samples...): nil, or the error reply for a key of another type or a command that is not
--   permitted on it; each sample is a command and its arguments behind the key.
local function refuse(key, kind, ...)
    for _, sample in ipairs({ ... }) do
        if not redis.acl_check_cmd(sample[1], key, unpack(sample, 2)) then
            return redis.error_reply('NOPERM this user has no permissions to run ' .. sample[1] .. ' on ' .. key)
        end
    end
    local found = redis.call('TYPE', key).ok
    if found ~= kind and found ~= 'none' then
        return redis.error_reply("WRONGTYPE key '" .. key .. "' is a " .. found .. ', not a ' .. kind)
    end
end
