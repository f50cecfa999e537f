#!lua flags=allow-oom
-- Takes those of some tasks off the shard that wait and whose limit keys have their slots elsewhere, to be queued
-- there. Nothing is left of them, not even a tombstone. One instance at a time does this for a shard.
-- KEYS: none. ARGV: epoch, ring, instance, ms for which nobody else may, bytes (one task goes however large it is),
-- ids.
-- Returns {1, or 0 while another instance does it, how many of the ids it has looked at, per task: id, attempt, lane,
-- ready ms, score, extras, specification}.

local bad = guard()
if bad then
  return bad
end
local mover = call('GET', KEY.MOVER)
if (mover and mover ~= ARGV[3]) or call('HGET', KEY.META, 'confirmed') ~= ARGV[2] then
  return {0, 0}
end
call('SET', KEY.MOVER, ARGV[3], 'PX', ARGV[4])

local function is_stray(task)
  local state, extras = task[AT.STATE], task[AT.EXTRAS]
  local waits = state == 'ready' or state == 'delayed' or state == 'parked'
  local key = waits and extras and limits().traits_of(extras).key
  return key and not limits().serves(parts(task[AT.LANE]), key)
end

local budget, answer = tonumber(ARGV[5]), {1, 0}
for at = 6, #ARGV do
  local id = ARGV[at]
  local task = fetch_all(id)
  if is_stray(task) then
    local spec = call('GET', KEY.SPEC .. id) or ''
    if #answer > 2 and #spec > budget then
      break
    end
    budget = budget - #spec
    local next = #answer
    answer[next + 1], answer[next + 2], answer[next + 3] = id, tonumber(task[AT.ATTEMPT]), task[AT.LANE]
    answer[next + 4], answer[next + 5] = task[AT.READY], task[AT.SCORE]
    answer[next + 6], answer[next + 7] = task[AT.EXTRAS], spec
    detach(id, task)
    forget(id)
  end
  answer[2] = at - 5
end
flush()
return answer
