-- Moving tasks: for scripts that make, end or queue something. It stands behind the limits.
--
-- A command costs more than what it does, so removals, changes of lanes, counters and tombstones are collected
-- and written by flush(): a frame costs a few commands per task and not a dozen.
--
-- A slot of a limit is a lease, no more: the number of a queue's leases and of each limit key's change where a
-- task is detached from its lease and where it gets one, and nowhere else.

local PRIORITY_BOOST_MS = 60000

-- What is read of a task, by position; detach() needs those of fetch().
local ATTEMPT, STATE, LANE, OWNER, LEASE, EXTRAS, GRACE, LEASED, READY, SCORE, CANCEL = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11

local function fetch(id)
  return call('HMGET', KEY.TASK .. id, 'attempt', 'state', 'lane', 'owner', 'lease', 'extras', 'grace')
end

local function fetch_all(id)
  return call('HMGET', KEY.TASK .. id, 'attempt', 'state', 'lane', 'owner', 'lease', 'extras', 'grace', 'leased',
    'ready', 'score', 'cancel')
end

local counts = {}
local function count(scope, field, by)
  local fields = counts[scope]
  if not fields then
    fields = {}
    counts[scope] = fields
  end
  fields[field] = (fields[field] or 0) + by
end

-- Leases of limit keys that began or ended, and keys of which something left a lane or a lease.
local key_counts, freed = {}, {}
local function count_key(scope, key, by)
  local name = scope .. '/' .. key
  local entry = key_counts[name]
  if not entry then
    entry = {scope = scope, key = key, by = 0}
    key_counts[name] = entry
  end
  entry.by = entry.by + by
end

local function free_key(scope, key)
  local name = scope .. '/' .. key
  local entry = freed[name]
  if not entry then
    entry = {scope = scope, key = key, times = 0}
    freed[name] = entry
  end
  entry.times = entry.times + 1
end

-- Removals: from sorted sets, from sets, of keys.
local unsorted, unset, deleted, forgotten = {}, {}, {}, {}
local function collect(removals, key, member)
  local members = removals[key]
  if not members then
    members = {}
    removals[key] = members
  end
  members[#members + 1] = member
end

-- Deadlines that begin, and when the earliest thing is due that this call has brought about.
local deadlines, soonest = {}, nil
local function due_at(time)
  if not soonest or time < soonest then
    soonest = time
  end
end

local function add_deadline(time, member)
  deadlines[#deadlines + 1] = time
  deadlines[#deadlines + 1] = member
  due_at(time)
end

local function flush_deadlines()
  if #deadlines > 0 then
    call('ZADD', KEY.DEADLINES, unpack(deadlines))
    deadlines = {}
  end
end

local function end_deadline(member)
  flush_deadlines()
  collect(unsorted, KEY.DEADLINES, member)
end

local function set_wake(member, time)
  call('ZADD', KEY.WAKES, time, member)
  due_at(time)
end

local function flush_removals()
  for key, members in pairs(unsorted) do
    call('ZREM', key, unpack(members))
  end
  for key, members in pairs(unset) do
    call('SREM', key, unpack(members))
  end
  if #deleted > 0 then
    call('DEL', unpack(deleted))
  end
  unsorted, unset, deleted, forgotten = {}, {}, {}, {}
end

-- How a lane names a task.
local function member_of(id, attempt, extras)
  return extras and id .. attempt .. '+' or id .. attempt
end

local entering, weights = {}, {}
local function enter(lane, score, member, extras)
  local members = entering[lane]
  if not members then
    members = {}
    entering[lane] = members
  end
  members[#members + 1] = score
  members[#members + 1] = member
  if extras or WEIGHTED then
    weights[lane] = extras and traits_of(extras).weight or 1
  end
end

-- A lane that ran empty leaves the index; a class without lanes is forgotten.
local function prune(lane)
  if call('EXISTS', KEY.LANE .. lane) == 1 then
    return
  end
  local scope, kind, fairness = parts(lane)
  local class = scope .. '/' .. kind
  call('ZREM', KEY.LANES .. class, fairness)
  if WEIGHTED then
    call('HDEL', KEY.WEIGHTS .. class, fairness)
  end
  if call('EXISTS', KEY.LANES .. class) == 0 then
    call('SREM', KEY.TYPES .. scope, kind)
    call('HDEL', KEY.CLOCKS, class)
  end
end

local function ring_bell(class)
  local waiting = KEY.WAITING .. class
  local instances = call('SMEMBERS', waiting)
  if #instances > 0 then
    call('DEL', waiting)
    for _, instance in ipairs(instances) do
      call('PUBLISH', KEY.BELL .. instance, 'R ' .. class)
    end
  end
end

-- The queue may have something again: call who waits for any of its types.
local function ring_scope(scope)
  for _, kind in ipairs(call('SMEMBERS', KEY.TYPES .. scope)) do
    ring_bell(scope .. '/' .. kind)
  end
end

-- Weights of 1 are not kept. The weight of a key's latest task counts.
local function note_weight(class, fairness, weight)
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

local function flush_lanes()
  for lane, members in pairs(entering) do
    call('ZADD', KEY.LANE .. lane, unpack(members))
    local scope, kind, fairness = parts(lane)
    local class = scope .. '/' .. kind
    local weight = weights[lane]
    if weight then
      note_weight(class, fairness, weight)
    end
    -- A key that comes (back) stands behind the one that was served last, so that it cannot starve others.
    local last = tonumber(call('HGET', KEY.CLOCKS, class) or -1)
    call('ZADD', KEY.LANES .. class, 'NX', last + 1 / (weight or 1), fairness)
    call('SADD', KEY.TYPES .. scope, kind)
    -- Who waits for a queue that is shut or full is called when that ends.
    local conf = LIMITED and conf_of(scope)
    if not conf or not (conf.shut or conf.starved == 1) then
      ring_bell(class)
    end
  end
  entering, weights = {}, {}
end

-- Parked tasks are ready but out of their lanes, until there is room for their limit key.
local parked_keys = {}
local function is_parked(scope, key)
  local name = scope .. '/' .. key
  if parked_keys[name] == nil then
    parked_keys[name] = call('EXISTS', KEY.PARKED .. name) == 1
  end
  return parked_keys[name]
end

local function park(scope, key, score, member)
  local name = scope .. '/' .. key
  call('ZADD', KEY.PARKED .. name, score, member)
  if not parked_keys[name] then
    call('ZADD', KEY.PARKED_KEYS .. scope, 'NX', NOW, key)
    parked_keys[name] = true
  end
end

local function note_unparked(scope, key)
  local name = scope .. '/' .. key
  parked_keys[name] = call('EXISTS', KEY.PARKED .. name) == 1
  if not parked_keys[name] then
    call('ZREM', KEY.PARKED_KEYS .. scope, key)
  end
end

-- Brings the first parked tasks of a limit key back into their lanes.
local function unpark(scope, key, limit)
  local name = KEY.PARKED .. scope .. '/' .. key
  local members = call('ZRANGE', name, 0, limit - 1, 'WITHSCORES')
  for at = 1, #members, 2 do
    local id = id_of(members[at])
    local task = call('HMGET', KEY.TASK .. id, 'lane', 'extras')
    call('HSET', KEY.TASK .. id, 'state', 'ready')
    enter(task[1], members[at + 1], members[at], task[2])
  end
  if #members > 0 then
    call('ZREMRANGEBYRANK', name, 0, #members / 2 - 1)
    note_unparked(scope, key)
  end
end

local buried = {}
local function bury(id, attempt, terminal, outcome)
  buried[#buried + 1] = id
  buried[#buried + 1] = attempt .. ' ' .. terminal .. ' ' .. outcome
end

local function flush_counts()
  local totals = {}
  for scope, fields in pairs(counts) do
    for field, by in pairs(fields) do
      if by ~= 0 then
        call('HINCRBY', KEY.QUEUE .. scope, field, by)
        totals[field] = (totals[field] or 0) + by
      end
    end
    if LIMITED and (fields.leased or 0) < 0 and conf_of(scope).starved == 1 then
      call('HDEL', KEY.CONF .. scope, 'starved')
      ring_scope(scope)
    end
  end
  for field, by in pairs(totals) do
    if by ~= 0 then
      call('HINCRBY', KEY.TOTALS, field, by)
    end
  end
  for _, entry in pairs(key_counts) do
    local name = KEY.RUNNING .. entry.scope
    if entry.by ~= 0 and call('HINCRBY', name, entry.key, entry.by) <= 0 then
      call('HDEL', name, entry.key)
    end
  end
  counts, key_counts = {}, {}
end

local function flush()
  flush_removals()
  flush_deadlines()
  for _, entry in pairs(freed) do
    if is_parked(entry.scope, entry.key) then
      unpark(entry.scope, entry.key, entry.times)
    end
  end
  freed = {}
  flush_lanes()
  flush_counts()
  if #buried > 0 then
    local key = bucket(0)
    call('HSET', key, unpack(buried))
    call('PEXPIREAT', key, (MINUTE + 2) * 60000)
  end
end

-- Milliseconds until the next delayed task, or something that this call has brought about, is due; -1 for never.
local function next_due()
  local due = due_in(KEY.DELAYED)
  if soonest then
    local ms = math.max(0, math.ceil(soonest - NOW))
    return due >= 0 and math.min(due, ms) or ms
  end
  return due
end

-- Take a waiting task out of its lane, its key's parked ones or the delayed ones.
local function detach_waiting(id, task, scope)
  local state, lane, extras = task[STATE], task[LANE], task[EXTRAS]
  local traits = extras and traits_of(extras)
  if traits and traits.start_by > 0 then
    end_deadline('s' .. id)
  end
  if state == 'delayed' then
    call('ZREM', KEY.DELAYED, id)
    count(scope, 'delayed', -1)
    return
  end
  local member = member_of(id, task[ATTEMPT], extras)
  if state == 'parked' then
    call('ZREM', KEY.PARKED .. scope .. '/' .. traits.key, member)
    note_unparked(scope, traits.key)
  else
    if entering[lane] then
      flush_lanes()
    end
    call('ZREM', KEY.LANE .. lane, member)
    prune(lane)
    if LIMITED and traits and traits.key then
      free_key(scope, traits.key)
    end
  end
  count(scope, 'ready', -1)
end

-- End what hangs on a lease of a task with extras.
local function end_traits(id, task, scope)
  local traits = traits_of(task[EXTRAS])
  if traits.close > 0 then
    end_deadline('c' .. id .. task[LEASE])
  end
  if traits.beat > 0 then
    end_deadline('h' .. id .. task[LEASE])
  end
  if traits.key then
    count_key(scope, traits.key, -1)
    if LIMITED then
      free_key(scope, traits.key)
    end
  end
end

-- Take a task out of wherever its state has put it; its hash stays. With the lease its slots are free.
local function detach(id, task)
  local state, owner, lease = task[STATE], task[OWNER], task[LEASE]
  local scope = parts(task[LANE])
  if state == 'ready' or state == 'delayed' or state == 'parked' then
    detach_waiting(id, task, scope)
    return
  end
  if state == 'closing' or state == 'returning' then
    collect(unsorted, KEY.CLOSING, id)
  elseif owner == '' then
    collect(unsorted, KEY.POLLED, id)
  else
    collect(unsorted, KEY.DELIVERIES, id .. lease)
    collect(unset, KEY.SESSION .. owner, id)
  end
  if not lease then
    -- It was not leased in time: until that is settled it counts as ready.
    count(scope, 'ready', -1)
    return
  end
  count(scope, 'leased', -1)
  if task[EXTRAS] then
    end_traits(id, task, scope)
  end
  if task[GRACE] then
    end_deadline('g' .. id .. lease)
  end
end

-- Begin what hangs on a lease of a task with extras. What is finished later has no handler to wait for.
local function begin_traits(id, extras, lease, leased, scope, deferred)
  local traits = traits_of(extras)
  if traits.close > 0 and not deferred then
    add_deadline(leased + traits.close, 'c' .. id .. lease)
  end
  if traits.beat > 0 and not deferred then
    add_deadline(NOW + traits.beat, 'h' .. id .. lease)
  end
  if traits.key then
    count_key(scope, traits.key, 1)
  end
end

local function forget(id)
  local at = #deleted
  deleted[at + 1], deleted[at + 2] = KEY.TASK .. id, KEY.SPEC .. id
  forgotten[id] = true
end

-- Put a task where it waits, and return the state that it has there.
local function place(id, attempt, lane, ready, score, extras)
  local scope = parts(lane)
  local traits = extras and traits_of(extras)
  if traits and traits.start_by > 0 then
    add_deadline(traits.start_by, 's' .. id)
  end
  if tonumber(ready) > NOW then
    call('ZADD', KEY.DELAYED, ready, id)
    count(scope, 'delayed', 1)
    return 'delayed'
  end
  count(scope, 'ready', 1)
  local member = member_of(id, attempt, extras)
  if LIMITED and traits and traits.key and is_parked(scope, traits.key) then
    park(scope, traits.key, score, member)
    return 'parked'
  end
  enter(lane, score, member, extras)
  return 'ready'
end

local LEASE_FIELDS = {'lease', 'owner', 'worker', 'leased', 'ttl', 'cancel', 'grace', 'deferred', 'over'}

-- Give a detached task back to its lane as the same attempt. One that is to be cancelled is dropped and
-- leaves a tombstone; one that was adopted without its specification is left to the ledger's comparison.
local function go_back(id, task)
  if task[CANCEL] then
    forget(id)
    bury(id, task[ATTEMPT], 1, '0 ')
  elseif call('STRLEN', KEY.SPEC .. id) == 0 then
    forget(id)
  else
    call('HDEL', KEY.TASK .. id, unpack(LEASE_FIELDS))
    local state = place(id, task[ATTEMPT], task[LANE], task[READY], task[SCORE], task[EXTRAS])
    call('HSET', KEY.TASK .. id, 'state', state)
  end
end

-- Move delayed tasks that are due into their lanes.
local function promote(limit)
  local due = call('ZRANGEBYSCORE', KEY.DELAYED, '-inf', NOW, 'LIMIT', 0, limit)
  for _, id in ipairs(due) do
    call('ZREM', KEY.DELAYED, id)
    local task = fetch_all(id)
    if task[LANE] then
      count(parts(task[LANE]), 'delayed', -1)
      local state = place(id, task[ATTEMPT], task[LANE], task[READY], task[SCORE], task[EXTRAS])
      call('HSET', KEY.TASK .. id, 'state', state)
    end
  end
  return #due
end
