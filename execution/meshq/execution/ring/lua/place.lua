-- Putting tasks where they wait: for scripts that queue something.

-- Put a task where it waits, and return the state that it has there.
local function place(id, attempt, lane, ready, score, extras)
  local scope = parts(lane)
  local traits = extras and limits().traits_of(extras)
  if traits and traits.start_by > 0 then
    slots().add_deadline(traits.start_by, 's' .. id)
  end
  if tonumber(ready) > NOW then
    call('ZADD', KEY.DELAYED, ready, id)
    count(scope, 'delayed', 1)
    return 'delayed'
  end
  count(scope, 'ready', 1)
  local member = member_of(id, attempt, extras)
  if LIMITED and traits and traits.key and slots().must_park(scope, lane, traits.key, score) then
    slots().park(scope, lane, traits.key, score, member)
    return 'parked'
  end
  enter(lane, score, member, extras)
  return 'ready'
end
