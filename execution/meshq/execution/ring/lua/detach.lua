-- Taking tasks out of wherever they are: for scripts that end, move or replace something.

local LEASE_FIELDS = {'lease', 'owner', 'worker', 'leased', 'ttl', 'cancel', 'grace', 'deferred', 'over'}

-- What is read of a task, by position (AT.STATE and the like); detach() needs what fetch() reads.
local function fetch(id)
  return call('HMGET', KEY.TASK .. id, 'attempt', 'state', 'lane', 'owner', 'lease', 'extras', 'grace')
end

local function fetch_all(id)
  return call('HMGET', KEY.TASK .. id, 'attempt', 'state', 'lane', 'owner', 'lease', 'extras', 'grace', 'leased',
    'ready', 'score', 'cancel', 'handed')
end

-- Take a waiting task out of its lane, its key's parked ones or the delayed ones.
local function detach_waiting(id, task, scope)
  local state, lane, extras = task[AT.STATE], task[AT.LANE], task[AT.EXTRAS]
  local traits = extras and limits().traits_of(extras)
  if traits and traits.start_by > 0 then
    slots().end_deadline('s' .. id)
  end
  if state == 'delayed' then
    call('ZREM', KEY.DELAYED, id)
    count(scope, 'delayed', -1)
    return
  end
  local member = member_of(id, task[AT.ATTEMPT], extras)
  if state == 'parked' then
    call('ZREM', limits().parked_name(lane, traits.key), member)
    slots().note_unparked(scope, lane, traits.key)
  else
    if entering[lane] then
      flush_lanes()
    end
    call('ZREM', KEY.LANE .. lane, member)
    prune(lane)
    if LIMITED and traits and traits.key then
      slots().free_key(scope, traits.key)
    end
  end
  count(scope, 'ready', -1)
end

-- Take a task out of wherever its state has put it; its hash stays. With the lease its slots are free.
local function detach(id, task)
  local state, owner, lease = task[AT.STATE], task[AT.OWNER], task[AT.LEASE]
  local scope = parts(task[AT.LANE])
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
  if task[AT.EXTRAS] then
    slots().end_traits(id, task[AT.EXTRAS], lease, scope)
  end
  if task[AT.GRACE] then
    slots().end_deadline('g' .. id .. lease)
  end
end
