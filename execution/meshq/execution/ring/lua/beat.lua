#!lua flags=allow-oom
-- Notes that handlers were heard of: the next word of each is due after its heartbeat timeout.
-- KEYS: none. ARGV: epoch, ring, per item: id, lease.
-- Returns nothing.

local bad = guard()
if bad then
  return bad
end
for at = 3, #ARGV, 2 do
  limits().beat(ARGV[at], ARGV[at + 1], call('HGET', KEY.TASK .. ARGV[at], 'extras'))
end
return redis.status_reply('OK')
