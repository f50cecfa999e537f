#!lua flags=allow-oom
-- Gives tasks back to their lanes with their first score; no attempt is spent.
-- KEYS: none. ARGV: epoch, ring, state that they must be in (leased or returning), per item: id, lease.
-- Returns per item 1 when it went back, 0 when it was not there any more.

local bad = guard()
if bad then
  return bad
end
local states = {}
for at = 4, #ARGV, 2 do
  local id = ARGV[at]
  local task = call('HMGET', KEY.TASK .. id, 'lease', 'state', 'attempt', 'lane', 'ready', 'score', 'cancel', 'owner')
  if task[1] == ARGV[at + 1] and task[2] == ARGV[3] and not forgotten[id] then
    detach(id, task[3], task[2], task[4], task[8], task[1])
    go_back(id, task[3], task[4], task[5], task[6], task[7])
    states[#states + 1] = 1
  else
    states[#states + 1] = 0
  end
end
flush()
return states
