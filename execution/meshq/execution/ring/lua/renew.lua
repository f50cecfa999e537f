#!lua flags=allow-oom
-- Extends sessions whose workers were heard.
-- KEYS: none. ARGV: epoch, ring, session ms, sessions.
-- Returns the indexes from 1 of sessions that have ended here.

local bad = guard()
if bad then
  return bad
end
local ended = {}
for at = 4, #ARGV do
  local deadline = tonumber(call('ZSCORE', KEY.SESSIONS, ARGV[at]) or 0)
  if deadline <= 1 then
    ended[#ended + 1] = at - 3
  else
    call('ZADD', KEY.SESSIONS, NOW + tonumber(ARGV[3]), ARGV[at])
  end
end
return ended
