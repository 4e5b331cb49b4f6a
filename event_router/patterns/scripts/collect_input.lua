#!lua
-- Notes that whoever asked has received what became of the request, if that is still kept.
--
-- KEYS: request. Reply: 1, or 0 where there is none.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'collected', '1')
return 1
