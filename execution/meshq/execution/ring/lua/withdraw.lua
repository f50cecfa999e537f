#!lua flags=allow-oom
-- Takes tasks off the shard because they are to be cancelled. A ready or delayed one goes; a leased one is
-- marked and its holder asked to stop; an unknown one leaves a tombstone, so that a late dispatch is skipped.
-- KEYS: none. ARGV: epoch, ring, ms of grace, per item: id, attempt, reason, mode (cancel or recall).
-- Returns per item 1 removed, 2 leased, 3 unknown.

local bad = guard()
if bad then
  return bad
end
local states = {}
for at = 4, #ARGV, 4 do
  local id, attempt, reason = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local task = call('HMGET', KEY.TASK .. id, 'attempt', 'state', 'lane', 'owner', 'lease', 'leased')
  local state = 3
  if forgotten[id] then
    state = 1
  elseif task[2] == 'ready' or task[2] == 'delayed' then
    detach(id, task[1], task[2], task[3])
    forget(id)
    state = 1
  elseif task[2] and ARGV[at + 3] == 'recall' then
    state = 2
  elseif task[2] then
    call('HSET', KEY.TASK .. id, 'cancel', reason)
    if task[2] == 'leased' then
      tell('C', task[4], task[1], task[5], task[6], task[3], id, reason)
    end
    state = 2
  end
  if state ~= 2 then
    bury(id, attempt, ARGV[at + 3] == 'recall' and 0 or 1, '0 ')
  end
  states[#states + 1] = state
end
flush()
return states
