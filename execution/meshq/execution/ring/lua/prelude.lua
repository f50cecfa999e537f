-- Shared by all scripts: it stands before each of them. KEY.TASK and the like are the names of keys (keys.py).
--
-- A lane is "tenant/queue/type/fairness key"; its class is the part before the fairness key and its
-- scope "tenant/queue". A lease is "epoch:number". Members of lanes are the id and the attempt (then '+' and
-- the extras of a task that has such), members of the deliveries the id and the lease, so that popping and
-- acknowledging need not look at the task.

local call = redis.call

local clock = call('TIME')
local NOW = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- Whether any queue was ever configured, and whether any task had a weight: while none has, nobody looks.
local LIMITED, WEIGHTED

-- The error to return when the shard is not what the caller believes it to be, else nil; and the state.
local function guard()
  local meta = call('HMGET', KEY.META, 'epoch', 'ring', 'state', 'limited', 'weighted')
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
  LIMITED, WEIGHTED = meta[4], meta[5]
  return nil, meta[3]
end

local ID_BYTES = 16
local function id_of(member)
  return string.sub(member, 1, ID_BYTES)
end

-- What an instance is told about one of its leases: kind session attempt lease time tenant id rest.
local function tell(kind, session, attempt, lease, leased, lane, id, rest)
  local instance = string.match(session, '^(.*)/[^/]*$')
  if instance then
    local tenant = string.match(lane, '^[^/]*')
    local message = table.concat({kind, session, attempt, lease, leased, tenant, id .. rest}, ' ')
    call('PUBLISH', KEY.BELL .. instance, message)
  end
end

-- Tombstones: id -> "attempt terminal outcome content", in a bucket for each minute that lives for two.
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

-- Milliseconds until the lowest score of a sorted set of deadlines is due, -1 when it is empty.
local function due_in(key)
  local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if #first == 0 then
    return -1
  end
  return math.max(0, math.ceil(tonumber(first[2]) - NOW))
end
