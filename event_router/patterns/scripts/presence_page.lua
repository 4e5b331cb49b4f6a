#!lua flags=no-writes
-- Users who are present, in the order of their names' bytes.
--
-- ARGV: ttl in ms, name after which to begin or '', how many names to look at (at most 1000).
-- Reply: {last name looked at, or '' at the end, then flat user, status, last seen in ms or false, connections}.
-- Those whose connections lapsed a moment ago are left out.
local now_ms, ttl_ms, after, most = presence_now(), tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local start = after == '' and '-' or '(' .. after
local names = redis.call('ZRANGEBYLEX', PRESENCE .. 'names', start, '+', 'LIMIT', 0, most)
if not names[1] then return { '' } end
local records = redis.call('HMGET', PRESENCE .. 'connections', unpack(names))
local seen = redis.call('ZMSCORE', PRESENCE .. 'seen', unpack(names))
local reply = { #names == most and names[#names] or '' }
for i, user in ipairs(names) do
    local status, count = presence_of(records[i], now_ms, ttl_ms)
    if status ~= 'offline' then
        local n = #reply
        reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = user, status, seen[i], count
    end
end
return reply
