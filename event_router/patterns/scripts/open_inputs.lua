#!lua
-- The open requests in the order in which they expire. First takes into the index those that commits opened.
--
-- KEYS: index of open requests, stream of those opened by commits.
-- ARGV: 'due' or 'all', how many to leave out, how many at most.
-- Reply: {epoch ms of this server, ids in turn}.
local index, opened = KEYS[1], KEYS[2]
local which, skip, most = ARGV[1], ARGV[2], ARGV[3]
local AT_ONCE = 1000

while true do
    local entries = redis.call('XRANGE', opened, '-', '+', 'COUNT', AT_ONCE)
    for _, entry in ipairs(entries) do
        local fields = {}
        for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
        if fields.request_id and fields.expires_ms then
            redis.call('ZADD', index, fields.expires_ms, fields.request_id)
        end
        redis.call('XDEL', opened, entry[1])
    end
    if #entries < AT_ONCE then break end
end
local time = redis.call('TIME')
local now_ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local last = which == 'due' and now_ms or '+inf'
return { now_ms, unpack(redis.call('ZRANGEBYSCORE', index, '-inf', last, 'LIMIT', skip, most)) }
