#!lua flags=allow-oom
-- Does what the ledger has answered to reports: done and gone remove the task and leave a tombstone, run puts
-- it back as a later attempt, later removes this attempt and leaves the next one to the ledger. Whoever else
-- holds a lease of the task is told that it is lost.
-- KEYS: none. ARGV: epoch, ring, per item: done, gone, run or later; id, reported attempt, reported lease,
-- attempt to run, not before ms, content of the tombstone.
-- Returns ms until something is due or -1.

local bad = guard()
if bad then
  return bad
end

-- Only a first attempt has to start by some time.
local function run_again(id, attempt, task, ready)
  local times = call('HMGET', KEY.TASK .. id, 'ready', 'score')
  local score = tonumber(ready) - (tonumber(times[1]) - tonumber(times[2]))
  local extras = task[AT.EXTRAS]
  if extras and limits().traits_of(extras).start_by > 0 then
    extras = string.gsub(extras, '^%d+', '0')
    call('HSET', KEY.TASK .. id, 'extras', extras)
  end
  call('HDEL', KEY.TASK .. id, 'died', 'handed', unpack(LEASE_FIELDS))
  local state = place(id, attempt, task[AT.LANE], ready, score, extras)
  call('HSET', KEY.TASK .. id, 'state', state, 'attempt', attempt, 'ready', ready, 'score', score)
end

-- Directives about an attempt that the shard is past of change nothing, unless the task is over.
local function concerns(kind, held, reported, later)
  if kind == 'run' then
    return tonumber(held) < tonumber(later)
  end
  return kind ~= 'later' or tonumber(held) <= tonumber(reported)
end

for at = 3, #ARGV, 7 do
  local kind, id = ARGV[at], ARGV[at + 1]
  local task, reported, later = fetch(id), ARGV[at + 2], ARGV[at + 4]
  if task[AT.ATTEMPT] and not forgotten[id] and concerns(kind, task[AT.ATTEMPT], reported, later) then
    detach(id, task)
    if task[AT.STATE] == 'leased' and task[AT.LEASE] ~= ARGV[at + 3] then
      local leased = call('HGET', KEY.TASK .. id, 'leased')
      tell('L', task[AT.OWNER], task[AT.ATTEMPT], task[AT.LEASE], leased, task[AT.LANE], id, '')
    end
    if kind ~= 'run' or call('STRLEN', KEY.SPEC .. id) == 0 then
      forget(id)
    else
      run_again(id, later, task, ARGV[at + 5])
    end
  end
  if kind ~= 'run' then
    bury(id, reported, kind == 'later' and '0' or '1', ARGV[at + 6])
  end
end
flush()
return next_due()
