#!lua
-- Answers a request or lets it expire, and adds the event that tells of it: all in one step, and once.
--
-- KEYS: the request, the job's newest request, what the job waits for, index of open requests, stream of the
--   event, stream that wakes those who wait.
-- ARGV: token of this call, request id, job id, its maxlen of the waking stream, time of the change,
--   user or '' to let it expire, value.
-- Reply: what became of the call: answered, answered before, expired, not due, unknown, or stranger.
local request, newest, interaction, index, stream, settled = unpack(KEYS)
local token, request_id, job_id, maxlen, moment, user, value = unpack(ARGV)

local found = redis.call('HMGET', request, 'status', 'owner', 'expires_ms', 'answer_id', 'n')
local status, owner, expires_ms, answer_id, number = unpack(found, 1, 5)
if not status then
    redis.call('ZREM', index, request_id)
    return 'unknown'
end
if user ~= '' and user ~= owner then return 'stranger' end
if status == 'answered' then
    redis.call('ZREM', index, request_id)
    return answer_id == token and 'answered' or 'answered before' -- the same call, sent again
end
if status == 'expired' then
    redis.call('ZREM', index, request_id)
    return 'expired'
end
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local expired = now_ms >= tonumber(expires_ms)
if user == '' and not expired then return 'not due' end

-- Nothing below may fail half way: a script is not rolled back.
local refusal = refuse(request, 'hash', { 'HSET', 'f', 'v' })
    or refuse(newest, 'hash', { 'HSET', 'f', 'v' })
    or refuse(interaction, 'hash', { 'HSET', 'f', 'v' })
    or refuse(index, 'zset', { 'ZREM', 'm' })
    or refuse(settled, 'stream', { 'XADD', '*', 'f', 'v' })
if refusal then return refusal end

local event = { 'id', token, 'job_id', job_id, 'user_id', owner, 'request_id', request_id }
local changes
if expired then
    redis.call('XADD', stream, '*', 'type', 'input_expired', unpack(event))
    changes = { 'status', 'expired' }
    redis.call('HSET', request, 'announce_expired', token, unpack(changes))
else
    redis.call('XADD', stream, '*', 'type', 'input_received', 'value', value, unpack(event))
    changes = { 'status', 'answered', 'value', value, 'answered_at', moment }
    redis.call('HSET', request, 'answer_id', token, 'announce_received', token, unpack(changes))
end
if redis.call('HGET', newest, 'n') == number then
    redis.call('HSET', newest, unpack(changes))
    -- It expires with the newest request; without one it would stay for ever.
    redis.call('HSET', interaction, 'status', changes[2], 'updated_at', moment)
    redis.call('PEXPIRE', interaction, math.max(1, redis.call('PTTL', newest)))
end
redis.call('ZREM', index, request_id)
redis.pcall('XADD', settled, 'MAXLEN', '~', maxlen, '*', 'request_id', request_id)
return expired and 'expired' or 'answered'
