#!lua flags=allow-oom
-- Finds again what a poll with the same request id has leased and still holds.
-- KEYS: none. ARGV: epoch, ring, poll's key.
-- Returns per task: id, attempt, lease, lane, ms when it was leased, ms when the lease ends, extras as the lease
-- call returns them, specification.

local bad = guard()
if bad then
  return bad
end
local function extras_of(lane)
  return LIMITED and limits().conf_of(parts(lane)).version > 0 and limits().NO_TRAITS or ''
end

local leases, answer = call('HGETALL', ARGV[3]), {}
for at = 1, #leases, 2 do
  local id = leases[at]
  local task = call('HMGET', KEY.TASK .. id, 'lease', 'state', 'attempt', 'lane', 'leased', 'extras')
  local ends = call('ZSCORE', KEY.POLLED, id)
  local spec = call('GET', KEY.SPEC .. id)
  if task[1] == leases[at + 1] and task[2] == 'leased' and ends and spec then
    local extras = task[6] or extras_of(task[4])
    for _, value in ipairs({id, tonumber(task[3]), task[1], task[4], task[5], ends, extras, spec}) do
      answer[#answer + 1] = value
    end
  end
end
return answer
