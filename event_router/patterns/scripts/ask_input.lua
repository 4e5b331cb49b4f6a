#!lua
-- Puts a question to a job's user unless it is put already: its record, its event and the index in one step.
--
-- KEYS: the job's newest request (the record of each is there, ':' and its number), what the job waits for,
--   index of open requests, stream of the event.
-- ARGV: number or '', token of this call, job id, owner, prompt, schema, requested at, expires at, the same in
--   epoch ms, ms to keep the record, timeout in seconds.
-- Reply: its number. Where none is given: that of the newest request if it asks the same and nobody has
--   received yet what became of it, else the next.
local newest, interaction, index, stream = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local number, token, job_id, owner, prompt, schema = tonumber(ARGV[1]), unpack(ARGV, 2, 6)
local requested_at, expires_at, expires_ms, keep_ms, timeout_s = unpack(ARGV, 7, 11)
local SENT_AGAIN = 16 -- so many later requests may have come between this call and its repetition

local last = tonumber(redis.call('HGET', newest, 'n') or 0)
local function record(n) return newest .. ':' .. n end
local function stands(n) return redis.call('HEXISTS', record(n), 'status') == 1 end

if not number then
    for n = last, math.max(1, last - SENT_AGAIN), -1 do
        if redis.call('HGET', record(n), 'ask_id') == token then return n end
    end
    if last > 0 then
        local asked = redis.call('HMGET', record(last), 'owner', 'prompt', 'schema', 'collected')
        if asked[1] == owner and asked[2] == prompt and asked[3] == schema and not asked[4] then return last end
    end
    number = last + 1
    while stands(number) do number = number + 1 end -- the newest one's record is gone, one with more time is not
elseif stands(number) then
    return number
end

-- Nothing below may fail half way: a script is not rolled back.
local own = record(number)
for _, key in ipairs({ own, newest, interaction }) do
    local refusal = refuse(key, 'hash', { 'HSET', 'f', 'v' }, { 'DEL' }, { 'PEXPIRE', '1' })
    if refusal then return refusal end
end
local refusal = refuse(index, 'zset', { 'ZADD', '1', 'm' })
if refusal then return refusal end

local request_id = job_id .. ':' .. number
redis.call(
    'XADD', stream, '*', 'type', 'input_requested', 'id', token, 'job_id', job_id, 'user_id', owner,
    'request_id', request_id, 'prompt', prompt, 'schema', schema, 'timeout_s', timeout_s
)
local fields = {
    'request_id', request_id, 'n', number, 'job_id', job_id, 'owner', owner, 'status', 'pending',
    'prompt', prompt, 'schema', schema,
    'requested_at', requested_at, 'expires_at', expires_at, 'expires_ms', expires_ms
}
local function write(key, values)
    redis.call('DEL', key)
    redis.call('HSET', key, unpack(values))
    redis.call('PEXPIRE', key, keep_ms)
end
if number >= last then
    write(newest, fields)
    write(interaction, {
        'request_id', request_id, 'n', number, 'owner', owner, 'status', 'pending', 'updated_at', requested_at
    })
end
write(own, fields)
redis.call('HSET', own, 'ask_id', token, 'announce_requested', token)
redis.call('ZADD', index, expires_ms, request_id)
return number
