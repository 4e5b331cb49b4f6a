#!lua flags=no-writes
-- The groups of a stream, each with the entry before which it lets everything go.
--
-- KEYS[1]: stream.
-- Reply: {server ms, length, first id or '', {{group, its lowest pending id or its last delivered, consumer or '', idle ms}...}}
local stream = KEYS[1]
local time = redis.call('TIME')
local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
if redis.call('EXISTS', stream) == 0 then return { now, 0, '', {} } end
local info = fields_of(redis.call('XINFO', 'STREAM', stream))
local holders = {}
for _, listed in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local group = fields_of(listed)
    local pending = redis.call('XPENDING', stream, group['name'], '-', '+', '1')[1]
    if pending then
        holders[#holders + 1] = { group['name'], pending[1], pending[2], pending[3] }
    else
        holders[#holders + 1] = { group['name'], group['last-delivered-id'], '', 0 }
    end
end
return { now, info['length'], info['first-entry'] and info['first-entry'][1] or '', holders }
