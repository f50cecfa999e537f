#!lua flags=allow-oom
-- Does what time asks for: delayed tasks become ready, those whose queue or limit key has tokens again are called
-- for, and what is over is handed out, again and again until somebody has settled it. Such tasks are `closing`:
-- the end of their attempt is to be recorded. Deliveries that were not acknowledged are `returning`: they are to
-- go back unless their attempt has ended after all.
-- KEYS: none. ARGV: epoch, ring, limit of each kind, ms that the caller has to close what it gets.
-- Returns {ms until something is due or -1, 1 if more is due now,
-- per lease: id, attempt, lease, lane, worker, ms when it was leased, kind (see Over)}.

local bad = guard()
if bad then
  return bad
end
local POISON_DEATHS = 3
local UNPARK_LIMIT, UNPARK_KEYS, WAKE_PAUSE_MS = 500, 50, 20
local limit, closing_ms = tonumber(ARGV[3]), tonumber(ARGV[4])
local more = 0

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

-- Tokens and keys --------------------------------------------------------------------------------------------

local unparks_left = UNPARK_LIMIT

-- Brings back as many parked tasks of a key as its limits have room for, and comes again while that is too few.
-- Where all its leases are taken nothing is to be done: each that ends brings one back.
local function wake_key(scope, key)
  if not limits().serves(scope, key) then
    return
  end
  local conf = limits().conf_of(scope)
  local most, tokens = unparks_left, nil
  local room = conf.keymax > 0 and math.max(0, conf.keymax - limits().running_of(scope, {key})[1]) or math.huge
  most = math.min(most, room)
  if conf.keyrate then
    tokens = limits().tokens_of(scope, {key}, conf.keyrate)[1]
    most = math.min(most, math.max(0, math.floor(tokens)))
  end
  if most > 0 then
    slots().unpark(scope, key, most)
    unparks_left = unparks_left - most
  end
  if most < room and slots().is_parked(scope, key) then
    local pause = 0
    if tokens and unparks_left > 0 then
      pause = math.max(WAKE_PAUSE_MS, limits().until_tokens(tokens, most + 1, conf.keyrate))
    end
    slots().set_wake('K' .. scope .. '/' .. key, NOW + pause)
  end
end

-- The limits per key have changed at that time: looks at the keys that were parked before.
local function wake_all(scope, since)
  local keys = call('ZRANGEBYSCORE', KEY.PARKED_KEYS .. scope, '-inf', since, 'LIMIT', 0, UNPARK_KEYS)
  for _, key in ipairs(keys) do
    call('ZADD', KEY.PARKED_KEYS .. scope, math.max(NOW, since + 1), key)
    wake_key(scope, key)
  end
  if #keys == UNPARK_KEYS then
    call('ZADD', KEY.WAKES, string.format('%.0f', since), 'A' .. scope)
    more = 1
  end
end

local woken = call('ZRANGEBYSCORE', KEY.WAKES, '-inf', NOW, 'WITHSCORES', 'LIMIT', 0, limit)
for at = 1, #woken, 2 do
  local kind, name = string.match(woken[at], '^(.)(.*)$')
  call('ZREM', KEY.WAKES, woken[at])
  if kind == 'S' then
    slots().ring_scope(name)
  elseif kind == 'K' then
    wake_key(string.match(name, '^([^/]*/[^/]*)/(.*)$'))
  else
    wake_all(name, tonumber(woken[at + 1]))
  end
end

-- Leases that are over ---------------------------------------------------------------------------------------

local settling = {-1, 0}

-- What is closing keeps its slots: only who settles it knows whether it goes on.
local function hand_out(id, task, state, kind)
  local rest = call('HMGET', KEY.TASK .. id, 'worker', 'leased')
  local worker = rest[1]
  if not worker then
    worker = task[AT.OWNER] and string.match(call('HGET', KEY.SESSION_WORKERS, task[AT.OWNER]) or '', '[^/]*$') or ''
  end
  local at = #settling
  settling[at + 1], settling[at + 2] = id, tonumber(task[AT.ATTEMPT])
  settling[at + 3] = task[AT.LEASE] or ARGV[1] .. ':0'
  settling[at + 4], settling[at + 5], settling[at + 6] = task[AT.LANE], worker, rest[2] or '0'
  settling[at + 7] = kind
  call('HSET', KEY.TASK .. id, 'state', state, 'worker', worker, 'over', kind)
  call('ZADD', KEY.CLOSING, NOW + closing_ms, id)
end

local function tell_lost(id, task)
  local leased = call('HGET', KEY.TASK .. id, 'leased')
  tell('L', task[AT.OWNER], task[AT.ATTEMPT], task[AT.LEASE], leased, task[AT.LANE], id, '')
end

for _, member in ipairs(due(KEY.DELIVERIES)) do
  local id, lease = id_of(member), string.sub(member, ID_BYTES + 1)
  local task = fetch(id)
  call('ZREM', KEY.DELIVERIES, member)
  if task[AT.STATE] == 'leased' and task[AT.LEASE] == lease then
    call('SREM', KEY.SESSION .. task[AT.OWNER], id)
    tell_lost(id, task)
    hand_out(id, task, 'returning', 'returning')
  end
end

-- A session that vanished before it acknowledged may have been killed by the task: after a few such deaths
-- the delivery counts as an attempt. One that said goodbye (deadline 0) proves nothing.
local function end_lease(id, died)
  local task = fetch(id)
  if task[AT.STATE] ~= 'leased' then
    return
  end
  local received = call('ZREM', KEY.DELIVERIES, id .. task[AT.LEASE]) == 0
  local deaths = (tonumber(call('HGET', KEY.TASK .. id, 'died')) or 0) + died
  if died > 0 and not received then
    call('HSET', KEY.TASK .. id, 'died', deaths)
  end
  if received or deaths >= POISON_DEATHS then
    hand_out(id, task, 'closing', 'lost')
  else
    hand_out(id, task, 'returning', 'returning')
  end
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
  local task = fetch(id)
  call('ZREM', KEY.POLLED, id)
  if task[AT.STATE] == 'leased' then
    local deferred = call('HEXISTS', KEY.TASK .. id, 'deferred') == 1
    hand_out(id, task, 'closing', deferred and 'finish_later' or 'lost')
  end
end

-- Deadlines of tasks -----------------------------------------------------------------------------------------

local KINDS = {c = 'start_to_close', h = 'heartbeat', g = 'grace'}

-- It was not leased in time. Until that is settled it counts as ready and is in nobody's way.
local function refuse(id, task)
  if task[AT.STATE] == 'ready' or task[AT.STATE] == 'parked' or task[AT.STATE] == 'delayed' then
    detach(id, task)
    count(parts(task[AT.LANE]), 'ready', 1)
    hand_out(id, task, 'closing', 'start_by')
  end
end

local function overrun(id, task, lease, kind)
  if task[AT.STATE] ~= 'leased' or task[AT.LEASE] ~= lease then
    return
  end
  if task[AT.OWNER] == '' then
    call('ZREM', KEY.POLLED, id)
  else
    call('ZREM', KEY.DELIVERIES, id .. lease)
    call('SREM', KEY.SESSION .. task[AT.OWNER], id)
    tell_lost(id, task)
  end
  hand_out(id, task, 'closing', kind)
end

for _, member in ipairs(due(KEY.DEADLINES)) do
  local kind, id = string.sub(member, 1, 1), string.sub(member, 2, ID_BYTES + 1)
  local lease = string.sub(member, ID_BYTES + 2)
  local task = fetch(id)
  call('ZREM', KEY.DEADLINES, member)
  if kind == 's' then
    refuse(id, task)
  else
    overrun(id, task, lease, KINDS[kind])
  end
end

for _, id in ipairs(due(KEY.CLOSING)) do
  local task = fetch(id)
  if task[AT.STATE] == 'closing' or task[AT.STATE] == 'returning' then
    hand_out(id, task, task[AT.STATE], call('HGET', KEY.TASK .. id, 'over'))
  else
    call('ZREM', KEY.CLOSING, id)
  end
end
flush()

local SETS = {KEY.DELAYED, KEY.DELIVERIES, KEY.SESSIONS, KEY.POLLED, KEY.DEADLINES, KEY.CLOSING, KEY.WAKES}
for _, key in ipairs(SETS) do
  local ms = due_in(key)
  if ms >= 0 and (settling[1] < 0 or ms < settling[1]) then
    settling[1] = ms
  end
end
settling[2] = more
return settling
