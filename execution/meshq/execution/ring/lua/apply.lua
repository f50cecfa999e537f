#!lua flags=allow-oom
-- Does what the ledger has answered to reports: done and gone remove the task and leave a tombstone, run puts
-- it back as a later attempt. Whoever else holds a lease of it is told that it is lost.
-- KEYS: none. ARGV: epoch, ring, per item: done, gone or run; id, reported attempt, reported lease, attempt to
-- run, not before ms, content of the tombstone.
-- Returns ms until the next delayed task is due or -1.

local bad = guard()
if bad then
  return bad
end

local function run_again(id, attempt, lane, ready)
  local times = call('HMGET', KEY.TASK .. id, 'ready', 'score')
  local score = tonumber(ready) - (tonumber(times[1]) - tonumber(times[2]))
  call('HDEL', KEY.TASK .. id, 'died', unpack(LEASE_FIELDS))
  call('HSET', KEY.TASK .. id, 'attempt', attempt, 'ready', ready, 'score', score)
  queue_up(id, attempt, lane, ready, score)
end

for at = 3, #ARGV, 7 do
  local kind, id = ARGV[at], ARGV[at + 1]
  local task = call('HMGET', KEY.TASK .. id, 'attempt', 'state', 'lane', 'owner', 'lease')
  local later = tonumber(ARGV[at + 4])
  if task[1] and not forgotten[id] and (kind ~= 'run' or tonumber(task[1]) < later) then
    detach(id, task[1], task[2], task[3], task[4], task[5])
    if task[2] == 'leased' and task[5] ~= ARGV[at + 3] then
      local leased = call('HGET', KEY.TASK .. id, 'leased')
      tell('L', task[4], task[1], task[5], leased, task[3], id, '')
    end
    if kind ~= 'run' or call('STRLEN', KEY.SPEC .. id) == 0 then
      forget(id)
    else
      run_again(id, later, task[3], ARGV[at + 5])
    end
  end
  if kind ~= 'run' then
    bury(id, ARGV[at + 2], 1, ARGV[at + 6])
  end
end
flush()
return due_in(KEY.DELAYED)
