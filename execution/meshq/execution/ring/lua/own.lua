#!lua flags=allow-oom
-- Tells the shard which slots of limit keys it has in this version of the ring. It goes on to serve those that it has
-- served until now and still has; those that are new to it are served when they have been confirmed.
-- KEYS: none. ARGV: epoch, ring, map of slots (a bit for each, see slots.py), or '' to ask how things stand.
-- Returns {ms until something is due or -1, 1 if it knows its slots, 1 if they are confirmed, 1 if it holds no limit
-- keys but its own, a number that changes when that has to be looked at anew}.

local bad = guard()
if bad then
  return bad
end
local ring, map = ARGV[2], ARGV[3]
local meta = call('HMGET', KEY.META, 'slots', 'confirmed', 'changes')
local known, confirmed, changes = meta[1], meta[2], tonumber(meta[3]) or 0

if map ~= '' and known ~= ring then
  if confirmed and confirmed == known and call('GET', KEY.SERVED) == map then
    -- The change is none for this shard.
    if LIMITED == 'r' .. known then
      LIMITED = 'r' .. ring
      call('HSET', KEY.META, 'limited', LIMITED)
    end
    confirmed = ring
    call('HSET', KEY.META, 'confirmed', ring)
  else
    changes = call('HINCRBY', KEY.META, 'changes', 1)
    call('SET', KEY.MAP, map)
    call('BITOP', 'AND', KEY.SERVED, KEY.SERVED, KEY.MAP)
    call('DEL', KEY.MAP)
  end
  known = ring
  call('HSET', KEY.META, 'slots', ring)
  -- What came since the shard has heard of the ring was parked, because nobody knew whose it is.
  for _, scope in ipairs(call('SMEMBERS', KEY.SPREAD)) do
    slots().set_wake('A' .. scope, NOW)
  end
end
local settled = confirmed == ring and (not LIMITED or LIMITED == 'r' .. ring)
return {next_due(), known == ring and 1 or 0, confirmed == ring and 1 or 0, settled and 1 or 0, changes}
