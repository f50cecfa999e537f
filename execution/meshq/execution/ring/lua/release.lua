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
  local task = fetch_all(id)
  if task[LEASE] == ARGV[at + 1] and task[STATE] == ARGV[3] and not forgotten[id] then
    detach(id, task)
    go_back(id, task)
    states[#states + 1] = 1
  else
    states[#states + 1] = 0
  end
end
flush()
return states
