#!lua flags=allow-oom
-- Takes waiting tasks off a shard that is being drained, to be queued on others. Nothing is left of them, not even a
-- tombstone. One instance at a time does this for a shard.
-- KEYS: none. ARGV: epoch, ring, instance, ms for which nobody else may, bytes (one task goes however large it is),
-- ids.
-- Returns {1, or 0 while another instance does it, per task: id, attempt, lane, ready ms, score, extras,
-- specification}.

local bad = guard()
if bad then
  return bad
end
local mover = call('GET', KEY.MOVER)
if mover and mover ~= ARGV[3] then
  return {0}
end
call('SET', KEY.MOVER, ARGV[3], 'PX', ARGV[4])

local budget, answer = tonumber(ARGV[5]), {1}
for at = 6, #ARGV do
  local id = ARGV[at]
  local task = fetch_all(id)
  local state = task[AT.STATE]
  if state == 'ready' or state == 'delayed' or state == 'parked' then
    local spec = call('GET', KEY.SPEC .. id) or ''
    if #answer > 1 and #spec > budget then
      break
    end
    budget = budget - #spec
    local next = #answer
    answer[next + 1], answer[next + 2], answer[next + 3] = id, tonumber(task[AT.ATTEMPT]), task[AT.LANE]
    answer[next + 4], answer[next + 5] = task[AT.READY], task[AT.SCORE]
    answer[next + 6], answer[next + 7] = task[AT.EXTRAS] or '', spec
    detach(id, task)
    forget(id)
  end
end
flush()
return answer
