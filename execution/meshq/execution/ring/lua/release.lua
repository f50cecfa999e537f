#!lua flags=allow-oom
-- Gives tasks back to their lanes with their first score; no attempt is spent.
-- KEYS: none. ARGV: epoch, ring, state that they must be in (leased or returning), per item: id, lease.
-- Returns per item 1 when it went back, 0 when it was not there any more.

local bad = guard()
if bad then
  return bad
end

-- Give a detached task back to its lane as the same attempt. One that is to be cancelled is dropped and
-- leaves a tombstone; one that was adopted without its specification is left to the ledger's comparison.
local function go_back(id, task)
  if task[AT.CANCEL] then
    forget(id)
    bury(id, task[AT.ATTEMPT], 1, '0 ')
  elseif call('STRLEN', KEY.SPEC .. id) == 0 then
    forget(id)
  else
    call('HDEL', KEY.TASK .. id, unpack(LEASE_FIELDS))
    local state = place(id, task[AT.ATTEMPT], task[AT.LANE], task[AT.READY], task[AT.SCORE], task[AT.EXTRAS])
    call('HSET', KEY.TASK .. id, 'state', state)
    if ARGV[3] == 'returning' then
      -- Its worker said nothing, and may have got it all the same.
      call('HSET', KEY.TASK .. id, 'handed', 1)
    end
  end
end

local states = {}
for at = 4, #ARGV, 2 do
  local id = ARGV[at]
  local task = fetch_all(id)
  if task[AT.LEASE] == ARGV[at + 1] and task[AT.STATE] == ARGV[3] and not forgotten[id] then
    detach(id, task)
    go_back(id, task)
    states[#states + 1] = 1
  else
    states[#states + 1] = 0
  end
end
flush()
return states
