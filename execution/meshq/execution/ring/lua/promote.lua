-- Moves delayed tasks that are due into their lanes.
local function promote(limit)
  local due = call('ZRANGEBYSCORE', KEY.DELAYED, '-inf', NOW, 'LIMIT', 0, limit)
  for _, id in ipairs(due) do
    call('ZREM', KEY.DELAYED, id)
    local task = call('HMGET', KEY.TASK .. id, 'attempt', 'lane', 'ready', 'score', 'extras')
    if task[1] then
      count(parts(task[2]), 'delayed', -1)
      local state = place(id, task[1], task[2], task[3], task[4], task[5])
      call('HSET', KEY.TASK .. id, 'state', state)
    end
  end
  return #due
end
