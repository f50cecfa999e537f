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
for at = 3, #ARGV, 7 do
  local kind, id, attempt = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local task = call('HMGET', KEY.TASK .. id, 'attempt', 'state', 'lane', 'owner', 'lease', 'ready', 'score', 'leased')
  local later = tonumber(ARGV[at + 4])
  if task[1] and (kind ~= 'run' or tonumber(task[1]) < later) then
    detach(id, task[2], task[3], task[4])
    if task[2] == 'leased' and task[5] ~= ARGV[at + 3] then
      tell('L', task[4], task[1], task[5], task[8], task[3], id, '')
    end
    if kind ~= 'run' or call('EXISTS', KEY.SPEC .. id) == 0 then
      forget(id)
    else
      local ready = ARGV[at + 5]
      local score = tonumber(ready) - (tonumber(task[6]) - tonumber(task[7]))
      call('HDEL', KEY.TASK .. id, 'deliveries', 'died', unpack(LEASE_FIELDS))
      call('HSET', KEY.TASK .. id, 'attempt', later, 'ready', ready, 'score', score)
      queue_up(id, task[3], ready, score)
    end
  end
  if kind ~= 'run' then
    bury(id, attempt, 1, ARGV[at + 6])
  end
end
flush()
return due_in(KEY.DELAYED)
