#!lua flags=allow-oom
-- Counts the leases of each limit key of queues.
-- KEYS: none. ARGV: epoch, ring, most keys of a queue, scopes (tenant/queue).
-- Returns per scope {key, leases, key, leases ...}, or 0 where there are more keys.

local bad = guard()
if bad then
  return bad
end
local answers = {}
for at = 4, #ARGV do
  local name = KEY.RUNNING .. ARGV[at]
  answers[#answers + 1] = call('HLEN', name) <= tonumber(ARGV[3]) and call('HGETALL', name) or 0
end
return answers
