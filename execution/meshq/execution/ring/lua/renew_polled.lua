#!lua flags=allow-oom
-- Extends polled leases by their lease time; it counts as a word of their handlers.
-- KEYS: none. ARGV: epoch, ring, per item: id, lease.
-- Returns per item {1, reason} when it is to be cancelled, {1} when it goes on, {0} when it is lost and the
-- shard holds the task otherwise or has a tombstone, {2} when the shard does not know the task.

local bad = guard()
if bad then
  return bad
end
local answers = {}
for at = 3, #ARGV, 2 do
  local id = ARGV[at]
  local task = call('HMGET', KEY.TASK .. id, 'lease', 'state', 'ttl', 'cancel', 'extras')
  local answer = {0}
  if task[1] == ARGV[at + 1] and task[2] == 'leased' then
    if task[3] then
      call('ZADD', KEY.POLLED, 'XX', NOW + tonumber(task[3]), id)
    end
    limits().beat(id, task[1], task[5])
    answer = task[4] and {1, task[4]} or {1}
  elseif (not task[2] or task[2] == 'ready' or task[2] == 'delayed' or task[2] == 'parked')
    and not tombstones({id})[1] then
    answer = {2}
  end
  answers[#answers + 1] = answer
end
return answers
