#!lua flags=allow-oom
-- Takes ready tasks and makes their leases, in one step. Of each queue it looks at the fairness key with the lowest
-- virtual time, and of that key at the class whose lane has the lowest head; it takes from the queue that has the
-- lowest head.
-- KEYS: none. ARGV: epoch, ring, instance, tasks wanted, bytes wanted, lease ms (until a delivery must be
-- acknowledged; of a poll: the lease itself), session ms (0 for a poll), poll's key or '', number of owners,
-- per owner: session ('' for a poll), worker, number of tasks; then the classes by queue: the queue, number of
-- types, types.
-- Returns {now ms, score where the next class stands or '' or '-inf', ms until something is due or -1,
-- per task: id, attempt, lease number, owner's index from 1, class's index from 1, extras, specification}.
-- In queues that are configured extras are never empty, so that whoever holds the lease knows where it counts.
-- When nothing is left, the instance is noted to be called when one of the classes gets a task, or may be served
-- again; '-inf' says that it got all that it wanted, so that nobody has noted that nothing is left.
-- Queues that are paused or at their limits are passed over; a task whose limit key has no room is parked, and one that
-- was to start before now leaves its lane and is left to expire.lua.

local bad, shard_state = guard()
if bad then
  return bad
end
local epoch, instance = ARGV[1], ARGV[3]
local wanted, budget = tonumber(ARGV[4]), tonumber(ARGV[5])
local lease_ms, session_ms, poll_key = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]
local owners_end = 9 + 3 * tonumber(ARGV[9])
local owners, rooms = {}, 0
for at = 10, owners_end, 3 do
  local room = tonumber(ARGV[at + 2])
  owners[#owners + 1] = {session = ARGV[at], worker = ARGV[at + 1], room = room, ids = {}}
  rooms = rooms + room
end
wanted = math.min(wanted, rooms)

promote(100)
flush_lanes()

-- Finds the lane of a class whose turn it is; false when there is none.
local function look(candidate)
  local lowest = call('ZRANGE', KEY.LANES .. candidate.class, 0, 1, 'WITHSCORES')
  if #lowest == 0 then
    candidate.gone = true
    return false
  end
  local lane = candidate.class .. '/' .. lowest[1]
  local head = call('ZRANGE', KEY.LANE .. lane, 0, 0, 'WITHSCORES')
  candidate.lane, candidate.fairness, candidate.crowded = lane, lowest[1], #lowest > 2
  candidate.time, candidate.score = tonumber(lowest[2]), tonumber(head[2])
  candidate.stands = candidate.score
  return true
end

-- Whether there are several fairness keys, among which turns are to be taken over several classes.
local candidates, several = {}, false
local function consider(class, index)
  local candidate = {class = class, index = index}
  if look(candidate) then
    candidates[#candidates + 1] = candidate
    several = several or candidate.crowded or candidate.fairness ~= candidates[1].fairness
  end
end

-- Workers name all types that they have handlers for, and most have no tasks: nothing is done here for each of them.
local queues, classes_before, at = {}, 0, owners_end + 1
while at < #ARGV do
  local queue = {scope = ARGV[at], first = at + 2, last = at + 1 + tonumber(ARGV[at + 1])}
  queues[#queues + 1] = queue
  for place, there in ipairs(call('SMISMEMBER', KEY.TYPES .. queue.scope, unpack(ARGV, queue.first, queue.last))) do
    if there == 1 then
      consider(queue.scope .. '/' .. ARGV[queue.first + place - 1], classes_before + place)
    end
  end
  classes_before = classes_before + queue.last - queue.first + 1
  at = queue.last + 1
end

local gates = LIMITED and make_gates(candidates, shard_state)

local groups = several and #candidates > 1 and make_turns(candidates, look) or {}

-- The positions of the lowest head and the one after it. Classes that share their turns have one head together.
local function lowest_two()
  for _, group in ipairs(groups) do
    group.rank()
  end
  local first, second
  for position, candidate in ipairs(candidates) do
    if candidate.group and candidate.group.best ~= candidate then
      -- Another class stands for it.
    elseif not first or candidate.stands < candidates[first].stands then
      first, second = position, first
    elseif not second or candidate.stands < candidates[second].stands then
      second = position
    end
  end
  return first, second
end

local turn = 0
local function next_owner()
  repeat
    turn = turn % #owners + 1
  until owners[turn].room > 0
  owners[turn].room = owners[turn].room - 1
  return turn
end

-- Times are written once and not for each task.
local now_text, ends_text = string.format('%.0f', NOW), string.format('%.0f', NOW + lease_ms)
local taken, ends = {NOW, '', -1}, {}
local number = tonumber(call('HGET', KEY.META, 'leases') or 0)
local amount, full = 0, false
-- A call that meets very many tasks that are too late ends early rather than go past them all.
local late, LATE_LIMIT = 0, 500

-- Makes the lease of one task, which stands at a place of its lane's members. Returns 'yes' when it did, 'gone'
-- when the task left the lane otherwise, and 'no' when it must stay there.
local function take(members, at_member, spec, scope, index, gate)
  local member = members[at_member]
  local id, attempt, extras = id_of(member), tonumber(string.sub(member, ID_BYTES + 1)), ''
  if not spec then
    forget(id)
    count(scope, 'ready', -1)
    return 'gone'
  end
  if not attempt then
    attempt, extras = split_member(member)
  end
  local traits = extras ~= '' and limits().traits_of(extras)
  if traits and traits.start_by > 0 and traits.start_by <= NOW then
    -- It must not start any more. With its deadline, which is due, it counts as ready until expire.lua hands it out.
    slots().due_at(traits.start_by)
    late = late + 1
    full = full or late == LATE_LIMIT
    return 'gone'
  end
  if amount > 0 and #spec > budget then
    full = true
    return 'no'
  end
  if gate then
    local verdict = gates.admit(gate, id, member, members[at_member + 1], extras)
    full = full or gates.tired
    if verdict ~= 'yes' then
      return verdict == 'parked' and 'gone' or 'no'
    end
  end
  budget = budget - #spec
  amount = amount + 1
  number = number + 1
  local owner_index = next_owner()
  local owner = owners[owner_index]
  local lease = epoch .. ':' .. number
  if session_ms == 0 then
    call('HSET', KEY.TASK .. id, 'state', 'leased', 'lease', lease, 'owner', '', 'leased', now_text,
      'worker', owner.worker, 'ttl', lease_ms)
  else
    call('HSET', KEY.TASK .. id, 'state', 'leased', 'lease', lease, 'owner', owner.session, 'leased',
      now_text)
  end
  if traits then
    if traits.start_by > 0 then
      slots().end_deadline('s' .. id)
    end
    slots().begin_traits(id, extras, lease, NOW, scope)
  end
  ends[#ends + 1] = ends_text
  ends[#ends + 1] = session_ms == 0 and id or id .. lease
  owner.ids[#owner.ids + 1] = id
  count(scope, 'ready', -1)
  count(scope, 'leased', 1)
  local at = #taken
  taken[at + 1], taken[at + 2], taken[at + 3] = id, attempt, number
  taken[at + 4], taken[at + 5], taken[at + 6], taken[at + 7] = owner_index, index, extras, spec
  if gate and extras == '' and gate.conf.version > 0 then
    taken[at + 6] = limits().NO_TRAITS
  end
  return 'yes'
end

-- Takes some of the members of a lane, which come with their scores, and says how many left the lane and how many
-- of them were leased. Specifications are read together, as many as will probably fit.
local function take_some(members, limit, scope, index, gate)
  local passed, served, at, size = 0, 0, 1, 4
  while at <= #members and not full do
    local specs = {}
    local last = math.min(at + 2 * size - 2, #members)
    for position = at, last, 2 do
      specs[#specs + 1] = KEY.SPEC .. id_of(members[position])
    end
    if gate then
      gates.meet(gate, members, at, last)
    end
    specs = call('MGET', unpack(specs))
    local read = 0
    for _, spec in ipairs(specs) do
      if (passed > 0 and limit and tonumber(members[at + 1]) > limit) or full or (gate and gate.room == 0) then
        return passed, served
      end
      local verdict = take(members, at, spec, scope, index, gate)
      if verdict == 'no' then
        return passed, served
      end
      read = read + (spec and #spec or 0)
      passed = passed + 1
      served = served + (verdict == 'yes' and 1 or 0)
      at = at + 2
    end
    size = math.max(1, math.min(200, math.floor(budget * #specs / math.max(read, 1))))
  end
  return passed, served
end

-- How many of a lane to look at in one turn. Keys share it by their weights.
local function quota_of(chosen, weight, gate)
  local quota = wanted - amount
  local keys = call('ZCARD', KEY.LANES .. chosen.class)
  if chosen.group then
    keys = math.max(keys, chosen.group.keys)
  end
  if keys > 1 then
    quota = math.min(quota, math.max(1, math.floor(quota * weight / (2 * keys))))
  end
  if gate then
    quota = math.min(quota, gate.room, gate.tokens and math.max(1, math.floor(gate.tokens)) or quota)
  end
  return quota
end

while amount < wanted and not full do
  local first, second = lowest_two()
  if not first then
    break
  end
  local chosen, limit = candidates[first], second and candidates[second].stands
  local group, fairness, time, lane = chosen.group, chosen.fairness, chosen.time, chosen.lane
  if group then
    chosen, limit = group.first_of(fairness, limit)
    lane = chosen.class .. '/' .. fairness
  end
  local scope = parts(lane)
  local gate = gates and gates.gate_of(scope)
  if gate then
    gate.lane = lane
  end
  local weight = WEIGHTED and tonumber(call('HGET', KEY.WEIGHTS .. chosen.class, fairness) or 1) or 1
  local quota = quota_of(chosen, weight, gate)
  local members = call('ZRANGE', KEY.LANE .. lane, 0, quota - 1, 'WITHSCORES')
  local passed, served = take_some(members, limit, scope, chosen.index, gate)
  if passed > 0 then
    call('ZREMRANGEBYRANK', KEY.LANE .. lane, 0, passed - 1)
  end
  if served > 0 and not group then
    call('HSET', KEY.CLOCKS, chosen.class, time + (served - 1) / weight)
    call('ZINCRBY', KEY.LANES .. chosen.class, served / weight, fairness)
  end
  if passed > 0 then
    prune(lane)
  end
  if group then
    group.serve(chosen, fairness, time, served, weight)
    full = full or group.tired
  else
    look(chosen)
  end
  for position = chosen.gone and #candidates or 0, 1, -1 do
    if candidates[position].gone then
      table.remove(candidates, position)
    end
  end
  if gate and gate.room == 0 then
    gates.close(gate)
  end
end

if gates then
  gates.keep()
end
for _, group in ipairs(groups) do
  group.keep()
end
if amount > 0 then
  call('HSET', KEY.META, 'leases', number)
  call('ZADD', session_ms == 0 and KEY.POLLED or KEY.DELIVERIES, unpack(ends))
  for _, owner in ipairs(owners) do
    if #owner.ids > 0 and session_ms > 0 then
      call('SADD', KEY.SESSION .. owner.session, unpack(owner.ids))
      call('ZADD', KEY.SESSIONS, 'NX', NOW + session_ms, owner.session)
    end
  end
  if poll_key ~= '' then
    for at = 4, #taken, 7 do
      call('HSET', poll_key, taken[at], epoch .. ':' .. taken[at + 2])
    end
    call('PEXPIRE', poll_key, lease_ms)
  end
end

-- Be called when a queue gets tasks of some types.
local function want_bell(queue)
  local entries = {}
  for place, instances in ipairs(call('HMGET', KEY.WAITING .. queue.scope, unpack(ARGV, queue.first, queue.last))) do
    local known = instances == instance
      or instances and string.find(' ' .. instances .. ' ', ' ' .. instance .. ' ', 1, true)
    if not known then
      entries[#entries + 1] = ARGV[queue.first + place - 1]
      entries[#entries + 1] = instances and instances .. ' ' .. instance or instance
    end
  end
  if #entries > 0 then
    call('HSET', KEY.WAITING .. queue.scope, unpack(entries))
  end
end

local first = lowest_two()
if not first and amount < wanted then
  for _, queue in ipairs(queues) do
    want_bell(queue)
  end
end
-- Where a queue stands in time: at the oldest of the keys that are next, since a key that has just come is next with a
-- new task, and the shard must not be passed over for that by shards whose keys have old ones.
local function stands_at(candidate)
  local lowest = candidate.stands
  local members = candidate.group and candidate.group.members or {candidate}
  for position = 1, math.min(#members, 8) do
    local class = members[position].class
    for _, fairness in ipairs(members[position].crowded and call('ZRANGE', KEY.LANES .. class, 1, 8) or {}) do
      local head = call('ZRANGE', KEY.LANE .. class .. '/' .. fairness, 0, 0, 'WITHSCORES')
      lowest = math.min(lowest, tonumber(head[2] or lowest))
    end
  end
  return lowest
end

flush()
if first then
  taken[2] = tostring(stands_at(candidates[first]))
elseif amount == wanted then
  taken[2] = '-inf'
end
taken[3] = next_due()
return taken
