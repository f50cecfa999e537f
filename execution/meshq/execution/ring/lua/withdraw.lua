#!lua flags=allow-oom
-- Takes tasks off the shard. To cancel: a waiting one goes, a leased one is marked and its holder asked to stop.
-- To recall: a waiting one goes unless it is a later attempt, any other is left alone. What is not here leaves a
-- tombstone, so that a late dispatch is skipped: of the task, or only of that attempt when it is recalled.
-- KEYS: none. ARGV: epoch, ring, ms of grace, per item: id, attempt, reason, mode (cancel or recall).
-- Returns per item 1 removed, 2 leased, 3 unknown, 4 removed to be cancelled although a worker may have it: one that
-- has not acknowledged it, or had it when another shard lost it.

local bad = guard()
if bad then
  return bad
end
local grace_ms = tonumber(ARGV[3])

-- Whoever holds a polled lease hears of the cancellation with its next heartbeat.
local function begin_grace(id, task)
  local poll = task[AT.OWNER] == '' and call('HMGET', KEY.TASK .. id, 'ttl', 'deferred')
  local ends = NOW + grace_ms + (poll and not poll[2] and tonumber(poll[1]) or 0)
  call('HSET', KEY.TASK .. id, 'grace', ends)
  slots().add_deadline(ends, 'g' .. id .. task[AT.LEASE])
end

local function cancel(id, task, reason)
  call('HSET', KEY.TASK .. id, 'cancel', reason)
  if task[AT.STATE] == 'leased' then
    tell('C', task[AT.OWNER], task[AT.ATTEMPT], task[AT.LEASE], task[AT.LEASED], task[AT.LANE], id, reason)
    if grace_ms > 0 and not task[AT.GRACE] then
      begin_grace(id, task)
    end
  end
end

local function is_waiting(state)
  return state == 'ready' or state == 'delayed' or state == 'parked'
end

local states = {}
for at = 4, #ARGV, 4 do
  local id, attempt, recall = ARGV[at], ARGV[at + 1], ARGV[at + 3] == 'recall'
  local task = fetch_all(id)
  local state = 3
  if forgotten[id] then
    state = 1
  elseif is_waiting(task[AT.STATE]) and not (recall and tonumber(task[AT.ATTEMPT]) > tonumber(attempt)) then
    detach(id, task)
    forget(id)
    state = task[AT.HANDED] and not recall and 4 or 1
  elseif task[AT.STATE] then
    if not recall then
      cancel(id, task, ARGV[at + 2])
    end
    state = 2
  end
  if state ~= 2 then
    bury(id, attempt, recall and 0 or 1, '0 ')
  end
  states[#states + 1] = state
end
flush()
return {next_due(), states}
