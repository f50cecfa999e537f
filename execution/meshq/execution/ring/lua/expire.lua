#!lua flags=allow-oom
-- Does what time asks for: delayed tasks become ready, and leases that are over are handed out, again and again
-- until somebody has settled them. Acknowledged ones are `closing`: they are to be recorded as LOST. The others
-- are `returning`: they are to go back unless their attempt has ended after all.
-- KEYS: none. ARGV: epoch, ring, limit of each kind, ms that the caller has to close what it gets.
-- Returns {ms until something is due or -1, 1 if more is due now,
-- per lease: id, attempt, lease, lane, worker, ms when it was leased, kind (see Over)}.

local bad = guard()
if bad then
  return bad
end
local limit, closing_ms = tonumber(ARGV[3]), tonumber(ARGV[4])
local more = 0
local FIELDS = {
  'attempt', 'state', 'lease', 'lane', 'ready', 'score', 'cancel', 'owner', 'worker', 'leased', 'died',
}

local function due(key)
  local ids = call('ZRANGEBYSCORE', key, '-inf', NOW, 'LIMIT', 0, limit)
  if #ids == limit then
    more = 1
  end
  return ids
end

if promote(limit) == limit then
  more = 1
end

local settling = {-1, 0}
local function hand_out(id, task, state)
  local worker = task[9]
  if not worker then
    worker = string.match(call('HGET', KEY.SESSION_WORKERS, task[8]) or '', '[^/]*$')
  end
  local at = #settling
  settling[at + 1], settling[at + 2], settling[at + 3] = id, tonumber(task[1]), task[3]
  settling[at + 4], settling[at + 5], settling[at + 6] = task[4], worker, task[10]
  settling[at + 7] = state == 'returning' and 'returning' or 'lost'
  call('HSET', KEY.TASK .. id, 'state', state, 'worker', worker)
  call('ZADD', KEY.CLOSING, NOW + closing_ms, id)
end

for _, member in ipairs(due(KEY.DELIVERIES)) do
  local id, lease = id_of(member), string.sub(member, ID_BYTES + 1)
  local task = call('HMGET', KEY.TASK .. id, unpack(FIELDS))
  call('ZREM', KEY.DELIVERIES, member)
  if task[2] == 'leased' and task[3] == lease then
    call('SREM', KEY.SESSION .. task[8], id)
    tell('L', task[8], task[1], lease, task[10], task[4], id, '')
    hand_out(id, task, 'returning')
  end
end

-- A session that vanished before it acknowledged may have been killed by the task: after a few such deaths
-- the delivery counts as an attempt. One that said goodbye (deadline 0) proves nothing.
local function end_lease(id, died)
  local task = call('HMGET', KEY.TASK .. id, unpack(FIELDS))
  if task[2] ~= 'leased' then
    return
  end
  local received = call('ZREM', KEY.DELIVERIES, id .. task[3]) == 0
  local deaths = (tonumber(task[11]) or 0) + died
  if died > 0 and not received then
    call('HSET', KEY.TASK .. id, 'died', deaths)
  end
  hand_out(id, task, (received or deaths >= POISON_DEATHS) and 'closing' or 'returning')
end

local left = limit
local ended = call('ZRANGEBYSCORE', KEY.SESSIONS, '-inf', NOW, 'WITHSCORES', 'LIMIT', 0, limit)
for at = 1, #ended, 2 do
  local session, died = ended[at], ended[at + 1] == '0' and 0 or 1
  if left > 0 then
    local ids = call('SPOP', KEY.SESSION .. session, left)
    left = left - #ids
    for _, id in ipairs(ids) do
      end_lease(id, died)
    end
  end
  if call('EXISTS', KEY.SESSION .. session) == 1 then
    more = 1
  else
    call('ZREM', KEY.SESSIONS, session)
    local worker = call('HGET', KEY.SESSION_WORKERS, session)
    call('HDEL', KEY.SESSION_WORKERS, session)
    local current = worker and call('HGET', KEY.WORKERS, worker)
    if current and string.sub(current, 1, #session + 1) == session .. ' ' then
      call('HDEL', KEY.WORKERS, worker)
    end
  end
end

for _, id in ipairs(due(KEY.POLLED)) do
  local task = call('HMGET', KEY.TASK .. id, unpack(FIELDS))
  call('ZREM', KEY.POLLED, id)
  if task[2] == 'leased' then
    hand_out(id, task, 'closing')
  end
end

for _, id in ipairs(due(KEY.CLOSING)) do
  local task = call('HMGET', KEY.TASK .. id, unpack(FIELDS))
  if task[2] == 'closing' or task[2] == 'returning' then
    hand_out(id, task, task[2])
  else
    call('ZREM', KEY.CLOSING, id)
  end
end
flush()

for _, key in ipairs({KEY.DELAYED, KEY.DELIVERIES, KEY.SESSIONS, KEY.POLLED, KEY.CLOSING}) do
  local ms = due_in(key)
  if ms >= 0 and (settling[1] < 0 or ms < settling[1]) then
    settling[1] = ms
  end
end
settling[2] = more
return settling
