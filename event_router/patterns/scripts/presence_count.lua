#!lua flags=no-writes
-- How many users are present now.
return redis.call('ZCOUNT', PRESENCE .. 'users', '(' .. string.format('%.0f', presence_now()), '+inf')
