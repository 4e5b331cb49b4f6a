#!lua
-- Adds a job's event to its stream and, unless a newer step is recorded, records its step and adds the message
-- about it to the fan-out log. All of it or nothing: what could fail is asked before the first write.
--
-- The version is the one that the router gives the step when it handles the entry, so that it finds the step
-- recorded, changes nothing and publishes nothing.
--
-- KEYS: stream, job state, fan-out log and, for an event with an id, the mark that it was added.
-- ARGV: '{terminal}:{seq}:', event time as text or '' for the entry's, time to live of the state in ms, about how
--   many messages the log keeps, channel, event type, the message behind its timestamp, time to live of the mark
--   in ms, how many values the record has; the record and the entry's fields, names and values in turn.
-- Reply: the entry's id; of an id that was added before, the first entry's.
local stream, state, log, mark = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local prefix, at, ttl, maxlen, channel, kind, message, mark_ttl = unpack(ARGV, 1, 8)
local last_of_record = 9 + tonumber(ARGV[9])
local call = redis.call

local COMMANDS = {
    { 'XADD', stream, '*', 'f', 'v' }, { 'TYPE', stream }, { 'TYPE', state }, { 'TYPE', log },
    { 'HGET', state, 'f' }, { 'HSET', state, 'f', 'v' }, { 'PEXPIRE', state, '1' },
    { 'XADD', log, '*', 'f', 'v' }, { 'EXISTS', log }, { 'XINFO', 'STREAM', log },
}
if mark then
    COMMANDS[#COMMANDS + 1] = { 'GET', mark }
    COMMANDS[#COMMANDS + 1] = { 'SET', mark, 'v', 'PX', '1' }
end
for _, command in ipairs(COMMANDS) do
    if not redis.acl_check_cmd(unpack(command)) then
        return redis.error_reply('NOPERM this user has no permissions to run ' .. table.concat(command, ' ', 1, 2))
    end
end

if mark then
    local added = call('GET', mark)
    if added then return added end
end
for key, wanted in pairs({ [stream] = 'stream', [state] = 'hash', [log] = 'stream' }) do
    local found = call('TYPE', key).ok
    if found ~= wanted and found ~= 'none' then
        return redis.error_reply("WRONGTYPE key '" .. key .. "' is a " .. found .. ', not a ' .. wanted)
    end
end
if call('EXISTS', log) == 1 then
    local info = call('XINFO', 'STREAM', log)
    for i = 1, #info, 2 do
        if info[i] == 'last-generated-id' and info[i + 1]:match('^18446744073709551615%-') then
            return redis.error_reply("ERR stream '" .. log .. "' can take no more entries: its last id is the greatest")
        end
    end
end

local id = call('XADD', stream, '*', unpack(ARGV, last_of_record + 1))
if mark then call('SET', mark, id, 'PX', mark_ttl) end
local version = prefix .. id .. '@' .. stream
local recorded = call('HGET', state, 'version')
if not recorded or newer_version(version, recorded) then
    if at == '' then at = time_text(tonumber(id:match('^%d+'))) end
    call('HSET', state, 'version', version, 'updated_at', at, unpack(ARGV, 10, last_of_record))
    call('PEXPIRE', state, ttl)
    call('XADD', log, 'MAXLEN', '~', maxlen, '*', 'channel', channel, 'type', kind,
        'message', '{"timestamp":"' .. at .. '"' .. message)
end
return id
