#!lua flags=allow-oom
-- Takes ready tasks of a queue that lives on another shard off this one, to be queued there. Nothing is left of them,
-- not even a tombstone. Delayed ones follow when they are ready.
-- KEYS: none. ARGV: epoch, ring, tenant/queue, number of tasks, bytes (one task goes however large it is).
-- Returns per task: id, attempt, lane, ready ms, score, extras, specification.

local bad = guard()
if bad then
  return bad
end
local scope, left = ARGV[3], tonumber(ARGV[4])
local moved = {}
local pack = packer(moved, tonumber(ARGV[5]))

-- Takes the first members of a lane or a parked set off it; as many as there is room for.
local function take_from(key)
  local members = call('ZRANGE', key, 0, left - 1)
  local taken = 0
  for _, member in ipairs(members) do
    local id = id_of(member)
    local task = fetch_all(id)
    if not pack(id, task) then
      left = 0
      break
    end
    left, taken = left - 1, taken + 1
    if task[AT.EXTRAS] and limits().traits_of(task[AT.EXTRAS]).start_by > 0 then
      slots().end_deadline('s' .. id)
    end
    count(scope, 'ready', -1)
  end
  if taken > 0 then
    call('ZREMRANGEBYRANK', key, 0, taken - 1)
  end
end

if limits().conf_of(scope).away == 1 then
  for _, kind in ipairs(call('SMEMBERS', KEY.TYPES .. scope)) do
    local class = scope .. '/' .. kind
    for _, fairness in ipairs(call('ZRANGE', KEY.LANES .. class, 0, math.max(0, left - 1))) do
      if left > 0 then
        take_from(KEY.LANE .. class .. '/' .. fairness)
        prune(class .. '/' .. fairness)
      end
    end
  end
  for _, key in ipairs(call('ZRANGE', KEY.PARKED_KEYS .. scope, 0, math.max(0, left - 1))) do
    for _, lane in ipairs(left > 0 and call('ZRANGE', KEY.PARKED_LANES .. scope .. '/' .. key, 0, left - 1) or {}) do
      if left > 0 then
        take_from(limits().parked_name(lane, key))
        slots().note_unparked(scope, lane, key)
      end
    end
  end
end
flush()
return moved
