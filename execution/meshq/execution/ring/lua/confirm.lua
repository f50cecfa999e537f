#!lua flags=allow-oom
-- Says that nobody else serves the slots of this shard any more, and that it was told what others still lease of their
-- keys: it serves all of them from now on.
-- KEYS: none. ARGV: epoch, ring, map of slots, the queues (tenant/queue) of which it was told.
-- Returns {ms until something is due or -1, 1 when it is confirmed, 0 when there are other queues or the shard does not
-- know its slots}.

local bad = guard()
if bad then
  return bad
end
local ring, map = ARGV[2], ARGV[3]
local meta = call('HMGET', KEY.META, 'slots', 'confirmed')
local told, complete = {}, meta[1] == ring
for at = 4, #ARGV do
  told[ARGV[at]] = true
end
local scopes = call('SMEMBERS', KEY.SPREAD)
for _, scope in ipairs(scopes) do
  complete = complete and told[scope] and limits().conf_of(scope).spread == 2
end
if complete and meta[2] ~= ring then
  call('SET', KEY.MAP, map)
  if call('GET', KEY.SERVED) ~= map then
    -- What has come is remembered for the rates of its keys, beside what came before.
    call('BITOP', 'XOR', KEY.SERVED, KEY.SERVED, KEY.MAP)
    call('BITOP', 'OR', KEY.ARRIVED, KEY.ARRIVED, KEY.SERVED)
    call('HSET', KEY.META, 'arrived', NOW)
  end
  call('RENAME', KEY.MAP, KEY.SERVED)
  call('HSET', KEY.META, 'confirmed', ring)
  for _, scope in ipairs(scopes) do
    slots().set_wake('A' .. scope, NOW)
  end
end
return {next_due(), complete and 1 or 0}
