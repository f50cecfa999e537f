#!lua flags=allow-oom
-- Closes the shard for good if it has no tasks: no script does anything there any more, until a later version of the
-- ring has the shard again and it begins anew.
-- KEYS: none. ARGV: epoch, ring.
-- Returns {ready, delayed, leased}: it is closed when all are 0.

local bad = guard()
if bad then
  return bad
end
local held = {}
for index, figure in ipairs(call('HMGET', KEY.TOTALS, 'ready', 'delayed', 'leased')) do
  held[index] = tonumber(figure) or 0
end
if held[1] + held[2] + held[3] == 0 then
  call('HSET', KEY.META, 'state', 'closed')
end
return held
