-- Slots of limits, deadlines and weights, for tasks that have such; made when the first of them comes by.
--
-- A slot is a lease, no more: the number of a queue's leases and of each limit key's change where a task is
-- detached from its lease and where it gets one, and nowhere else.

local function make_slots()
  local made = {}
  local traits_of, conf_of, parked_name = limits().traits_of, limits().conf_of, limits().parked_name
  local UNPARK_LANES = 20

  -- By scope and limit key: leases that began or ended, and tasks that left a lane or a lease.
  local key_counts, freed = {}, {}
  local function add(entries, scope, key, by)
    local keys = entries[scope]
    if not keys then
      keys = {}
      entries[scope] = keys
    end
    keys[key] = (keys[key] or 0) + by
  end

  function made.free_key(scope, key)
    add(freed, scope, key, 1)
  end

  -- Frames may have many keys of a queue: their counts are read and written together.
  local function change_counts(scope, changes)
    local name, keys, kept, ended = KEY.RUNNING .. scope, {}, {}, {}
    for key, by in pairs(changes) do
      if by ~= 0 then
        keys[#keys + 1] = key
      end
    end
    for index, before in ipairs(#keys > 0 and call('HMGET', name, unpack(keys)) or {}) do
      local key = keys[index]
      local now = (tonumber(before) or 0) + changes[key]
      if now > 0 then
        kept[#kept + 1] = key
        kept[#kept + 1] = now
      elseif before then
        ended[#ended + 1] = key
      end
    end
    if #kept > 0 then
      call('HSET', name, unpack(kept))
    end
    if #ended > 0 then
      call('HDEL', name, unpack(ended))
    end
  end

  function made.flush_keys()
    for scope, changes in pairs(key_counts) do
      change_counts(scope, changes)
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
      ring_bell(scope, kind)
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

  -- Whether any task of a queue is parked: most often none is, and then no key needs to be looked at.
  local parked_scopes = {}
  local function any_parked(scope)
    if parked_scopes[scope] == nil then
      parked_scopes[scope] = call('EXISTS', KEY.PARKED_KEYS .. scope) == 1
    end
    return parked_scopes[scope]
  end

  -- Whether a task has to stand behind parked ones, or its key is not served here (any more, or yet).
  function made.must_park(scope, lane, key, score)
    if not limits().serves(scope, key) then
      return true
    end
    local lowest = any_parked(scope) and first_of(lane, key)
    return lowest and tonumber(score) >= lowest
  end

  function made.park(scope, lane, key, score, member)
    local lowest = first_of(lane, key)
    call('ZADD', parked_name(lane, key), score, member)
    first[parked_name(lane, key)] = math.min(lowest or math.huge, tonumber(score))
    if not lowest then
      call('ZADD', KEY.PARKED_LANES .. scope .. '/' .. key, 'NX', NOW, lane)
      call('ZADD', KEY.PARKED_KEYS .. scope, 'NX', NOW, key)
      parked_scopes[scope] = true
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
      local _, extras = split_member(members[at])
      enter(lane, members[at + 1], members[at], extras)
    end
    call('ZREMRANGEBYRANK', name, 0, limit - 1)
    made.note_unparked(scope, lane, key)
  end

  -- Brings the first parked tasks of a limit key back: so many into each of its lanes, since only some of them may
  -- have workers. What finds no room after all is parked again. Of very many lanes those have their turn that were
  -- not looked at for longest.
  function made.unpark(scope, key, limit)
    if not limits().serves(scope, key) then
      return
    end
    local index = KEY.PARKED_LANES .. scope .. '/' .. key
    for _, lane in ipairs(call('ZRANGE', index, 0, UNPARK_LANES - 1)) do
      call('ZADD', index, 'XX', NOW, lane)
      unpark_lane(scope, lane, key, limit)
    end
  end

  -- What has left a lane or a lease makes room for the next of its key, if any of the queue's keys has such.
  function made.flush_freed()
    for scope, keys in pairs(freed) do
      for key, count in pairs(any_parked(scope) and keys or {}) do
        made.unpark(scope, key, count)
      end
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
      add(key_counts, scope, traits.key, 1)
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
      add(key_counts, scope, traits.key, -1)
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
      ring_bell(scope, kind)
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
