-- Slots of limits, deadlines and weights, for tasks that have such; made when the first of them comes by.
--
-- A slot is a lease, no more: the number of a queue's leases and of each limit key's change where a task is
-- detached from its lease and where it gets one, and nowhere else.

local function make_slots()
  local made = {}
  local traits_of, conf_of, parked_name = limits().traits_of, limits().conf_of, limits().parked_name
  local UNPARK_LANES = 20

  -- Leases of limit keys that began or ended, and keys of which something left a lane or a lease.
  local key_counts, freed = {}, {}
  local function entry_of(entries, scope, key)
    local name = scope .. '/' .. key
    entries[name] = entries[name] or {scope = scope, key = key, by = 0}
    return entries[name]
  end

  local function count_key(scope, key, by)
    local entry = entry_of(key_counts, scope, key)
    entry.by = entry.by + by
  end

  function made.free_key(scope, key)
    local entry = entry_of(freed, scope, key)
    entry.by = entry.by + 1
  end

  function made.flush_keys()
    for _, entry in pairs(key_counts) do
      local name = KEY.RUNNING .. entry.scope
      if entry.by ~= 0 and call('HINCRBY', name, entry.key, entry.by) <= 0 then
        call('HDEL', name, entry.key)
      end
    end
    key_counts = {}
  end

  -- Deadlines that begin. One may end in the same call that began it, so what begins is written first.
  local deadlines = {}
  function made.due_at(time)
    if not soonest or time < soonest then
      soonest = time
    end
  end

  function made.add_deadline(time, member)
    deadlines[#deadlines + 1] = time
    deadlines[#deadlines + 1] = member
    made.due_at(time)
  end

  function made.flush_deadlines()
    if #deadlines > 0 then
      call('ZADD', KEY.DEADLINES, unpack(deadlines))
      deadlines = {}
    end
  end

  function made.end_deadline(member)
    made.flush_deadlines()
    collect(unsorted, KEY.DEADLINES, member)
  end

  function made.set_wake(member, time)
    call('ZADD', KEY.WAKES, time, member)
    made.due_at(time)
  end

  -- Weights of 1 are not kept. The weight of a key's latest task counts.
  function made.note_weight(class, fairness, weight)
    if weight ~= 1 then
      if not WEIGHTED then
        WEIGHTED = '1'
        call('HSET', KEY.META, 'weighted', 1)
      end
      call('HSET', KEY.WEIGHTS .. class, fairness, tostring(weight))
    elseif WEIGHTED then
      call('HDEL', KEY.WEIGHTS .. class, fairness)
    end
  end

  -- The queue may have something again: call who waits for any of its types.
  function made.ring_scope(scope)
    for _, kind in ipairs(call('SMEMBERS', KEY.TYPES .. scope)) do
      ring_bell(scope .. '/' .. kind)
    end
  end

  -- A lease of the queue has ended. Who found it full is called.
  function made.note_room(scope)
    local conf = conf_of(scope)
    if conf.starved == 1 then
      conf.starved = 0
      call('HDEL', KEY.CONF .. scope, 'starved')
      made.ring_scope(scope)
    end
  end

  -- Parked tasks are ready but out of their lanes, until there is room for their limit key. They stand in a set for
  -- each lane and key; what is in the lane nevertheless goes before them. `first` knows the lowest scores.
  local first = {}
  local function first_of(lane, key)
    local name = parked_name(lane, key)
    if first[name] == nil then
      local found = call('ZRANGE', name, 0, 0, 'WITHSCORES')
      first[name] = tonumber(found[2] or nil) or false
    end
    return first[name]
  end

  -- Whether a task has to stand behind parked ones.
  function made.must_park(lane, key, score)
    local lowest = first_of(lane, key)
    return lowest and tonumber(score) >= lowest
  end

  function made.park(scope, lane, key, score, member)
    local lowest = first_of(lane, key)
    call('ZADD', parked_name(lane, key), score, member)
    first[parked_name(lane, key)] = math.min(lowest or math.huge, tonumber(score))
    if not lowest then
      call('ZADD', KEY.PARKED_LANES .. scope .. '/' .. key, 'NX', NOW, lane)
      call('ZADD', KEY.PARKED_KEYS .. scope, 'NX', NOW, key)
    end
  end

  -- Something has left the parked tasks of a lane.
  function made.note_unparked(scope, lane, key)
    first[parked_name(lane, key)] = nil
    if not first_of(lane, key) then
      call('ZREM', KEY.PARKED_LANES .. scope .. '/' .. key, lane)
      if not made.is_parked(scope, key) then
        call('ZREM', KEY.PARKED_KEYS .. scope, key)
      end
    end
  end

  function made.is_parked(scope, key)
    return call('EXISTS', KEY.PARKED_LANES .. scope .. '/' .. key) == 1
  end

  local function unpark_lane(scope, lane, key, limit)
    local name = parked_name(lane, key)
    local members = call('ZRANGE', name, 0, limit - 1, 'WITHSCORES')
    for at = 1, #members, 2 do
      local id = id_of(members[at])
      call('HSET', KEY.TASK .. id, 'state', 'ready')
      enter(lane, members[at + 1], members[at], call('HGET', KEY.TASK .. id, 'extras'))
    end
    call('ZREMRANGEBYRANK', name, 0, limit - 1)
    made.note_unparked(scope, lane, key)
  end

  -- Brings the first parked tasks of a limit key back: so many into each of its lanes, since only some of them may
  -- have workers. What finds no room after all is parked again. Of very many lanes those have their turn that were
  -- not looked at for longest.
  function made.unpark(scope, key, limit)
    local index = KEY.PARKED_LANES .. scope .. '/' .. key
    for _, lane in ipairs(call('ZRANGE', index, 0, UNPARK_LANES - 1)) do
      call('ZADD', index, 'XX', NOW, lane)
      unpark_lane(scope, lane, key, limit)
    end
  end

  -- What has left a lane or a lease makes room for the next of its key.
  function made.flush_freed()
    for _, entry in pairs(freed) do
      made.unpark(entry.scope, entry.key, entry.by)
    end
    freed = {}
  end

  -- Begin what hangs on a lease of a task with extras. What is finished later has no handler to wait for.
  function made.begin_traits(id, extras, lease, leased, scope, deferred)
    local traits = traits_of(extras)
    if traits.close > 0 and not deferred then
      made.add_deadline(leased + traits.close, 'c' .. id .. lease)
    end
    if traits.beat > 0 and not deferred then
      made.add_deadline(NOW + traits.beat, 'h' .. id .. lease)
    end
    if traits.key then
      count_key(scope, traits.key, 1)
    end
  end

  -- End the deadlines of its handler.
  function made.end_handler(id, lease, traits)
    if traits.close > 0 then
      made.end_deadline('c' .. id .. lease)
    end
    if traits.beat > 0 then
      made.end_deadline('h' .. id .. lease)
    end
  end

  -- End all that hangs on the lease.
  function made.end_traits(id, extras, lease, scope)
    local traits = traits_of(extras)
    made.end_handler(id, lease, traits)
    if traits.key then
      count_key(scope, traits.key, -1)
      if LIMITED then
        made.free_key(scope, traits.key)
      end
    end
  end

  return made
end

local made_slots
local function slots()
  made_slots = made_slots or make_slots()
  return made_slots
end

local function flush_lanes()
  for lane, members in pairs(entering) do
    call('ZADD', KEY.LANE .. lane, unpack(members))
    local scope, kind, fairness = parts(lane)
    local class = scope .. '/' .. kind
    local weight = weights[lane]
    if weight and (weight ~= 1 or WEIGHTED) then
      slots().note_weight(class, fairness, weight)
    end
    -- A key that comes (back) stands behind the one that was served last, so that it cannot starve others.
    local last = tonumber(call('HGET', KEY.CLOCKS, class) or -1)
    call('ZADD', KEY.LANES .. class, 'NX', last + 1 / (weight or 1), fairness)
    call('SADD', KEY.TYPES .. scope, kind)
    -- Who waits for a queue that is shut or full is called when that ends.
    local conf = LIMITED and limits().conf_of(scope)
    if not conf or not (conf.shut or conf.starved == 1) then
      ring_bell(class)
    end
  end
  entering, weights = {}, {}
end

local function flush()
  flush_removals()
  if made_slots then
    made_slots.flush_deadlines()
    made_slots.flush_freed()
    made_slots.flush_keys()
  end
  flush_lanes()
  local totals = {}
  for scope, fields in pairs(counts) do
    for field, by in pairs(fields) do
      if by ~= 0 then
        call('HINCRBY', KEY.QUEUE .. scope, field, by)
        totals[field] = (totals[field] or 0) + by
      end
    end
    if LIMITED and (fields.leased or 0) < 0 then
      slots().note_room(scope)
    end
  end
  for field, by in pairs(totals) do
    if by ~= 0 then
      call('HINCRBY', KEY.TOTALS, field, by)
    end
  end
  if #buried > 0 then
    local key = bucket(0)
    call('HSET', key, unpack(buried))
    call('PEXPIREAT', key, (MINUTE + 2) * 60000)
  end
end
