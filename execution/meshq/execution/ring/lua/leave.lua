#!lua flags=allow-oom
-- Ends sessions: what they hold is settled by the next expire.
-- KEYS: none. ARGV: epoch, ring, sessions.
-- Returns the number of sessions that were known.

local bad = guard()
if bad then
  return bad
end
local known = 0
for at = 3, #ARGV do
  if call('ZSCORE', KEY.SESSIONS, ARGV[at]) then
    call('ZADD', KEY.SESSIONS, 0, ARGV[at])
    known = known + 1
  end
end
return known
