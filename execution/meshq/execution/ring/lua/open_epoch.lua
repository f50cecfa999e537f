#!lua flags=allow-oom
-- Begins a new epoch: whatever the shard holds is dropped. Only one of several claimants gets it.
-- KEYS: none. ARGV: new epoch, ring, epoch that the claimant saw or '', run id, replication id,
-- generation of the database.
-- Returns the epoch that holds now. A server that holds data of somebody else is left as it is.

local seen = call('HGET', KEY.META, 'epoch') or ''
if seen ~= ARGV[3] then
  return seen
end
if seen == '' and call('DBSIZE') > 0 then
  return redis.error_reply('FOREIGN it holds data that is not of meshq; a shard must be a server of its own')
end
call('FLUSHDB', 'ASYNC')
call('HSET', KEY.META, 'epoch', ARGV[1], 'ring', ARGV[2], 'state', 'recovering', 'begun', NOW,
  'run_id', ARGV[4], 'replication_id', ARGV[5], 'generation', ARGV[6], 'leases', 0)
return ARGV[1]
