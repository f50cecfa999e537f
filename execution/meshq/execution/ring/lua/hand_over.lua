#!lua flags=allow-oom
-- Takes waiting tasks off a shard, to be queued on others: all, because it is being drained, or those whose limit keys
-- have their slots elsewhere. Nothing is left of them, not even a tombstone. One instance at a time does this for a
-- shard.
-- KEYS: none. ARGV: epoch, ring, instance, ms for which nobody else may, bytes (one task goes however large it is), 1
-- for those of other slots alone, ids.
-- Returns {1, or 0 while another instance does it or the shard does not serve all its slots, how many of the ids it has
-- looked at, per task: id, attempt, lane, ready ms, score, extras, specification}.

local bad = guard()
if bad then
  return bad
end
local strays_only, FIRST = ARGV[6] == '1', 7
local mover = call('GET', KEY.MOVER)
if mover and mover ~= ARGV[3] then
  return {0, 0}
elseif strays_only and call('HGET', KEY.META, 'confirmed') ~= ARGV[2] then
  return {0, 0}
end
call('SET', KEY.MOVER, ARGV[3], 'PX', ARGV[4])

local function goes(task)
  local state = task[AT.STATE]
  if state ~= 'ready' and state ~= 'delayed' and state ~= 'parked' then
    return false
  elseif not strays_only then
    return true
  end
  local key = task[AT.EXTRAS] and limits().traits_of(task[AT.EXTRAS]).key
  return key and not limits().serves(parts(task[AT.LANE]), key)
end

local answer = {1, 0}
local pack = packer(answer, tonumber(ARGV[5]))
for at = FIRST, #ARGV do
  local task = fetch_all(ARGV[at])
  if goes(task) then
    if not pack(ARGV[at], task) then
      break
    end
    detach(ARGV[at], task)
  end
  answer[2] = at - FIRST + 1
end
flush()
return answer
