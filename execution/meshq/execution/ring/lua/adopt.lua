#!lua flags=allow-oom
-- Takes over leases that a worker still holds. A lease that the shard knows moves to the given session. One of
-- an older epoch is made anew, unless another lease of the task exists; what is made anew has no specification
-- here, so that the task cannot run again from it.
-- KEYS: none. ARGV: epoch, ring, ms that a poll's lease lasts, per item: id, attempt, lease, session ('' for a
-- poll), worker, lane, ms when it was leased, extras, ms within which it is to be finished later or 0.
-- Returns per item 1 kept, 0 lost.

local bad = guard()
if bad then
  return bad
end
local prefix = ARGV[1] .. ':'
local poll_ms = tonumber(ARGV[3])

local function hold(id, lease, session, worker, leased)
  flush_removals()
  call('HSET', KEY.TASK .. id, 'state', 'leased', 'lease', lease, 'owner', session, 'worker', worker,
    'leased', leased)
  if session == '' then
    call('HSET', KEY.TASK .. id, 'ttl', poll_ms)
    call('ZADD', KEY.POLLED, NOW + poll_ms, id)
  else
    call('SADD', KEY.SESSION .. session, id)
  end
end

local states = {}
for at = 4, #ARGV, 9 do
  local id, attempt, lease, session = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local worker, lane, leased = ARGV[at + 4], ARGV[at + 5], ARGV[at + 6]
  local older = string.sub(lease, 1, #prefix) ~= prefix
  local task = call('HMGET', KEY.TASK .. id, 'attempt', 'state', 'lease', 'owner', 'lane', 'cancel')
  local kept = 0
  if task[3] == lease and (task[2] == 'leased' or task[2] == 'returning') then
    detach(id, attempt, task[2], task[5], task[4], lease)
    hold(id, lease, session, worker, leased)
    count(parts(task[5]), 'leased', 1)
    kept = 1
    if task[6] then
      tell('C', session, attempt, lease, leased, task[5], id, task[6])
    end
  elseif older and task[1] == attempt and (task[2] == 'ready' or task[2] == 'delayed') then
    detach(id, attempt, task[2], task[5])
    hold(id, lease, session, worker, leased)
    count(parts(task[5]), 'leased', 1)
    kept = 1
  elseif older and not task[1] and not tombstones({id})[1] then
    call('SET', KEY.SPEC .. id, '')
    call('HSET', KEY.TASK .. id, 'attempt', attempt, 'lane', lane, 'ready', leased, 'score', leased)
    if ARGV[at + 7] ~= '' then
      call('HSET', KEY.TASK .. id, 'extras', ARGV[at + 7])
    end
    hold(id, lease, session, worker, leased)
    count(parts(lane), 'leased', 1)
    kept = 1
  end
  states[#states + 1] = kept
end
flush()
return states
