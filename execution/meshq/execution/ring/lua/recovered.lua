#!lua flags=allow-oom
-- Notes that an instance has adopted what its sessions run; the shard is open when all live ones have, or
-- after one lease time.
-- KEYS: none. ARGV: epoch, ring, instance, ms after which nobody is waited for, live instances.
-- Returns the shard's state.

local bad, state = guard()
if bad then
  return bad
end
if state ~= 'recovering' then
  return state
end
call('SADD', KEY.RECOVERED, ARGV[3])
local all = true
for at = 5, #ARGV do
  all = all and call('SISMEMBER', KEY.RECOVERED, ARGV[at]) == 1
end
if all or NOW - tonumber(call('HGET', KEY.META, 'begun')) >= tonumber(ARGV[4]) then
  call('HSET', KEY.META, 'state', 'open')
  call('DEL', KEY.RECOVERED)
  return 'open'
end
return 'recovering'
