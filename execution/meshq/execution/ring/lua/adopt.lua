#!lua flags=allow-oom
-- Takes over leases that a worker still holds. A lease that the shard knows moves to the given session. One of
-- an older epoch is made anew, unless another lease of the task exists; what is made anew has no specification
-- here, so that the task cannot run again from it. Limits do not keep a lease from being adopted, but they count it.
-- KEYS: none. ARGV: epoch, ring, ms that a poll's lease lasts, per item: id, attempt, lease, session ('' for a
-- poll), worker, lane, ms when it was leased, extras, ms within which it is to be finished later or 0, when that
-- ends or 0 for from now on, ms that this poll's lease lasts or 0, 1 to leave a lease alone that is known here.
-- Returns {ms until something is due or -1, per item 1 kept, 0 lost}.

local bad = guard()
if bad then
  return bad
end
local prefix = ARGV[1] .. ':'
local poll_ms = tonumber(ARGV[3])

local function hold(item, lane, extras, grace)
  local id, lease, session = item.id, item.lease, item.session
  local key = KEY.TASK .. id
  flush_removals()
  call('HDEL', key, 'ttl', 'deferred', 'over')
  call('HSET', key, 'state', 'leased', 'lease', lease, 'owner', session, 'worker', item.worker, 'leased', item.leased)
  if session ~= '' then
    call('SADD', KEY.SESSION .. session, id)
  elseif item.deferred > 0 then
    call('HSET', key, 'ttl', item.deferred, 'deferred', 1)
    call('ZADD', KEY.POLLED, item.ends > 0 and item.ends or NOW + item.deferred, id)
  else
    local ttl = item.ttl > 0 and item.ttl or poll_ms
    call('HSET', key, 'ttl', ttl)
    call('ZADD', KEY.POLLED, NOW + ttl, id)
  end
  local scope = parts(lane)
  count(scope, 'leased', 1)
  if extras then
    local limit_key = limits().traits_of(extras).key
    if LIMITED and limit_key and limits().conf_of(scope).spread > 0 and not limits().has_slot(scope, limit_key) then
      limits().unsettle()
    end
    slots().begin_traits(id, extras, lease, item.leased, scope, item.deferred > 0)
  end
  if grace then
    slots().add_deadline(tonumber(grace), 'g' .. id .. lease)
  end
end

local function adopt(item)
  local id, lease = item.id, item.lease
  local older = string.sub(lease, 1, #prefix) ~= prefix
  local task = fetch_all(id)
  local state = task[AT.STATE]
  if task[AT.LEASE] == lease and (state == 'leased' or state == 'returning') then
    if item.absent then
      return 1
    end
    detach(id, task)
    hold(item, task[AT.LANE], task[AT.EXTRAS], task[AT.GRACE])
    if task[AT.CANCEL] then
      tell('C', item.session, item.attempt, lease, item.leased, task[AT.LANE], id, task[AT.CANCEL])
    end
    return 1
  elseif older and task[AT.ATTEMPT] == item.attempt
    and (state == 'ready' or state == 'delayed' or state == 'parked') then
    detach(id, task)
    hold(item, task[AT.LANE], task[AT.EXTRAS])
    return 1
  elseif older and not task[AT.ATTEMPT] and not tombstones({id})[1] then
    call('SET', KEY.SPEC .. id, '')
    call('HSET', KEY.TASK .. id, 'attempt', item.attempt, 'lane', item.lane, 'ready', item.leased, 'score', item.leased)
    if item.extras then
      call('HSET', KEY.TASK .. id, 'extras', item.extras)
    end
    hold(item, item.lane, item.extras)
    return 1
  end
  return 0
end

local answers = {-1}
for at = 4, #ARGV, 12 do
  answers[#answers + 1] = adopt({
    id = ARGV[at], attempt = ARGV[at + 1], lease = ARGV[at + 2], session = ARGV[at + 3], worker = ARGV[at + 4],
    lane = ARGV[at + 5], leased = ARGV[at + 6], extras = ARGV[at + 7] ~= '' and ARGV[at + 7],
    deferred = tonumber(ARGV[at + 8]), ends = tonumber(ARGV[at + 9]), ttl = tonumber(ARGV[at + 10]),
    absent = ARGV[at + 11] == '1',
  })
end
flush()
answers[1] = next_due()
return answers
