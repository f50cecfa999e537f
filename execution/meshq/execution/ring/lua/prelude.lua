-- Shared by all scripts: it stands before each of them, behind the table KEY.
--
-- A lane is "tenant/queue/type/fairness key"; its class is the part before the fairness key and its
-- scope "tenant/queue". A lease is "epoch:number". Members of lanes are the id and the attempt (and a '+' where
-- the task has extras), members of the deliveries the id and the lease, so that popping and acknowledging need
-- not look at the task.
--
-- A command costs more than what it does, so removals, changes of lanes, counters and tombstones are collected
-- and written by flush(): a frame costs a few commands per task and not a dozen.

local call = redis.call
local PRIORITY_BOOST_MS = 60000
local POISON_DEATHS = 3

local clock = call('TIME')
local NOW = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- The error to return when the shard is not what the caller believes it to be, else nil; and the state.
local function guard()
  local meta = call('HMGET', KEY.META, 'epoch', 'ring', 'state')
  if meta[1] ~= ARGV[1] then
    return redis.error_reply('EPOCH ' .. (meta[1] or 'none'))
  end
  if meta[3] == 'closed' then
    return redis.error_reply('CLOSED the shard was taken out of the ring')
  end
  local known, given = tonumber(meta[2]), tonumber(ARGV[2])
  if given < known then
    return redis.error_reply('RING ' .. meta[2])
  elseif given > known then
    call('HSET', KEY.META, 'ring', ARGV[2])
  end
  return nil, meta[3]
end

local known_parts = {}
local function parts(lane)
  local known = known_parts[lane]
  if not known then
    known = {string.match(lane, '^([^/]*/[^/]*)/([^/]*)/(.*)$')}
    known_parts[lane] = known
  end
  return known[1], known[2], known[3]
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

-- How a lane names a task.
local function member_of(id, attempt, extras)
  return extras and id .. attempt .. '+' or id .. attempt
end

local entering = {}
local function enter(lane, score, id, attempt, extras)
  local members = entering[lane]
  if not members then
    members = {}
    entering[lane] = members
  end
  members[#members + 1] = score
  members[#members + 1] = member_of(id, attempt, extras)
end

local ID_BYTES = 16
local function id_of(member)
  return string.sub(member, 1, ID_BYTES)
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

-- A lane that ran empty leaves the index; a class without lanes is forgotten.
local function prune(lane)
  if call('EXISTS', KEY.LANE .. lane) == 1 then
    return
  end
  local scope, kind, fairness = parts(lane)
  local class = scope .. '/' .. kind
  call('ZREM', KEY.LANES .. class, fairness)
  if call('EXISTS', KEY.LANES .. class) == 0 then
    call('SREM', KEY.TYPES .. scope, kind)
    call('HDEL', KEY.CLOCKS, class)
  end
end

local function instance_of(session)
  return string.match(session, '^(.*)/[^/]*$')
end

-- What an instance is told about one of its leases: kind session attempt lease time tenant id rest.
local function tell(kind, session, attempt, lease, leased, lane, id, rest)
  local instance = instance_of(session)
  if instance then
    local tenant = string.match(lane, '^[^/]*')
    local message = table.concat({kind, session, attempt, lease, leased, tenant, id .. rest}, ' ')
    call('PUBLISH', KEY.BELL .. instance, message)
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

local function flush_lanes()
  for lane, members in pairs(entering) do
    call('ZADD', KEY.LANE .. lane, unpack(members))
    local scope, kind, fairness = parts(lane)
    local class = scope .. '/' .. kind
    -- A key that comes (back) stands behind the one that was served last, so that it cannot starve others.
    local last = tonumber(call('HGET', KEY.CLOCKS, class) or -1)
    call('ZADD', KEY.LANES .. class, 'NX', last + 1, fairness)
    call('SADD', KEY.TYPES .. scope, kind)
    ring_bell(class)
  end
  entering = {}
end

-- Tombstones: id -> "attempt terminal outcome content", in a bucket for each minute that lives for two.
local buried = {}
local function bury(id, attempt, terminal, outcome)
  buried[#buried + 1] = id
  buried[#buried + 1] = attempt .. ' ' .. terminal .. ' ' .. outcome
end

local MINUTE = math.floor(NOW / 60000)
local function bucket(age)
  return KEY.TOMBSTONES .. string.format('%.0f', MINUTE - age)
end

-- The tombstones of many ids, false where there is none.
local function tombstones(ids)
  local found = {}
  for age = 0, 1 do
    local key = bucket(age)
    if #ids > 0 and call('EXISTS', key) == 1 then
      for index, value in ipairs(call('HMGET', key, unpack(ids))) do
        found[index] = found[index] or value
      end
    end
  end
  return found
end

local function flush()
  flush_removals()
  flush_lanes()
  local totals = {}
  for scope, fields in pairs(counts) do
    for field, by in pairs(fields) do
      if by ~= 0 then
        call('HINCRBY', KEY.QUEUE .. scope, field, by)
        totals[field] = (totals[field] or 0) + by
      end
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

-- Take a task out of wherever its state has put it; its hash stays.
local function detach(id, attempt, state, lane, owner, lease)
  local scope = parts(lane)
  if state == 'ready' then
    if entering[lane] then
      flush_lanes()
    end
    call('ZREM', KEY.LANE .. lane, member_of(id, attempt, call('HGET', KEY.TASK .. id, 'extras')))
    prune(lane)
    count(scope, 'ready', -1)
  elseif state == 'delayed' then
    call('ZREM', KEY.DELAYED, id)
    count(scope, 'delayed', -1)
  else
    if state == 'closing' or state == 'returning' then
      collect(unsorted, KEY.CLOSING, id)
    elseif owner == '' then
      collect(unsorted, KEY.POLLED, id)
    else
      collect(unsorted, KEY.DELIVERIES, id .. lease)
      collect(unset, KEY.SESSION .. owner, id)
    end
    count(scope, 'leased', -1)
  end
end

local function forget(id)
  local at = #deleted
  deleted[at + 1], deleted[at + 2] = KEY.TASK .. id, KEY.SPEC .. id
  forgotten[id] = true
end

-- Make a detached task ready, or delayed until its time.
local function queue_up(id, attempt, lane, ready, score)
  local scope = parts(lane)
  if tonumber(ready) > NOW then
    call('HSET', KEY.TASK .. id, 'state', 'delayed')
    call('ZADD', KEY.DELAYED, ready, id)
    count(scope, 'delayed', 1)
  else
    call('HSET', KEY.TASK .. id, 'state', 'ready')
    enter(lane, score, id, attempt, call('HGET', KEY.TASK .. id, 'extras'))
    count(scope, 'ready', 1)
  end
end

local LEASE_FIELDS = {'lease', 'owner', 'worker', 'leased', 'ttl', 'cancel'}

-- Give a detached task back to its lane as the same attempt. One that is to be cancelled is dropped and
-- leaves a tombstone; one that was adopted without its specification is left to the ledger's comparison.
local function go_back(id, attempt, lane, ready, score, cancel)
  if cancel then
    forget(id)
    bury(id, attempt, 1, '0 ')
  elseif call('STRLEN', KEY.SPEC .. id) == 0 then
    forget(id)
  else
    call('HDEL', KEY.TASK .. id, unpack(LEASE_FIELDS))
    queue_up(id, attempt, lane, ready, score)
  end
end

-- Move delayed tasks that are due into their lanes.
local function promote(limit)
  local due = call('ZRANGEBYSCORE', KEY.DELAYED, '-inf', NOW, 'LIMIT', 0, limit)
  for _, id in ipairs(due) do
    call('ZREM', KEY.DELAYED, id)
    local task = call('HMGET', KEY.TASK .. id, 'lane', 'score', 'attempt', 'extras')
    if task[1] then
      local scope = parts(task[1])
      call('HSET', KEY.TASK .. id, 'state', 'ready')
      enter(task[1], task[2], id, task[3], task[4])
      count(scope, 'delayed', -1)
      count(scope, 'ready', 1)
    end
  end
  return #due
end

-- Milliseconds until the lowest score of a sorted set of deadlines is due, -1 when it is empty.
local function due_in(key)
  local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if #first == 0 then
    return -1
  end
  return math.max(0, math.ceil(tonumber(first[2]) - NOW))
end
