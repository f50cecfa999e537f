#!lua flags=allow-oom
-- Closes the shard whatever it holds, because its tasks are elsewhere by now: it begins anew in a later version of the
-- ring than the given one.
-- KEYS: none. ARGV: ring.
-- Returns 1, or 0 where there is nothing of ours to be closed.

if call('HEXISTS', KEY.META, 'epoch') == 0 then
  return 0
end
call('HSET', KEY.META, 'state', 'closed', 'ring', ARGV[1])
return 1
