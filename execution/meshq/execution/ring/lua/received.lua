#!lua flags=allow-oom
-- Notes that deliveries arrived: from now on their leases live as long as their sessions.
-- KEYS: none. ARGV: epoch, ring, per item: id, lease, session.
-- Returns the indexes from 1 of leases that are lost.

local bad = guard()
if bad then
  return bad
end
local lost, arrived = {}, {}
for at = 3, #ARGV, 3 do
  arrived[#arrived + 1] = ARGV[at] .. ARGV[at + 1]
end
if #arrived > 0 and call('ZREM', KEY.DELIVERIES, unpack(arrived)) < #arrived then
  -- Some were not waiting for this: acknowledged before, or gone.
  for at = 3, #ARGV, 3 do
    local task = call('HMGET', KEY.TASK .. ARGV[at], 'lease', 'owner', 'state')
    if task[1] ~= ARGV[at + 1] or task[2] ~= ARGV[at + 2] or task[3] ~= 'leased' then
      lost[#lost + 1] = (at - 3) / 3 + 1
    end
  end
end
return lost
