#!lua flags=allow-oom
-- Says that the shard holds no tasks and no leases of limit keys whose slots are elsewhere, so that nobody has to look
-- at slots any more. It changes nothing when there may be such since that was looked at, or of a queue that the caller
-- does not know.
-- KEYS: none. ARGV: epoch, ring, number that `own` returned before that was looked at, the queues (tenant/queue) of
-- which it was looked at.
-- Returns 1 when it is settled.

local bad = guard()
if bad then
  return bad
end
local ring = ARGV[2]
local meta = call('HMGET', KEY.META, 'slots', 'confirmed', 'changes')
local settled = meta[1] == ring and meta[2] == ring and (tonumber(meta[3]) or 0) == tonumber(ARGV[3])
local looked_at = {}
for at = 4, #ARGV do
  looked_at[ARGV[at]] = true
end
for _, scope in ipairs(settled and call('SMEMBERS', KEY.SPREAD) or {}) do
  local conf = limits().conf_of(scope)
  -- While others lease keys of this shard somebody has to go on looking, until it was told that they do not.
  settled = settled and looked_at[scope] and conf.spread == 2 and conf.foreign == 0
end
if settled and LIMITED then
  call('HSET', KEY.META, 'limited', 'r' .. ring)
end
return settled and 1 or 0
