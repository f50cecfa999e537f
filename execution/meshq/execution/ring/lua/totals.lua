#!lua flags=allow-oom
-- How much the shard holds in all.
-- KEYS: none. ARGV: epoch, ring.
-- Returns {ready, delayed, leased}.

local bad = guard()
if bad then
  return bad
end
local totals = call('HMGET', KEY.TOTALS, 'ready', 'delayed', 'leased')
return {tonumber(totals[1]) or 0, tonumber(totals[2]) or 0, tonumber(totals[3]) or 0}
