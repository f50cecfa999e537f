#!lua flags=allow-oom
-- Begins a new epoch: whatever the shard holds is dropped. Only one of several claimants gets it. A shard that was taken
-- out of the ring begins anew only in a later version, or for a database of another generation.
-- KEYS: none. ARGV: new epoch, ring, epoch that the claimant saw or '', run id, replication id,
-- generation of the database.
-- Returns the epoch that holds now. A server that holds data of somebody else is left as it is.

local meta = call('HMGET', KEY.META, 'epoch', 'state', 'ring', 'generation')
local seen, closed = meta[1] or '', meta[2] == 'closed' and meta[4] == ARGV[6]
if seen ~= ARGV[3] or (closed and tonumber(ARGV[2]) <= tonumber(meta[3])) then
  return seen
end
if seen == '' and call('DBSIZE') > 0 then
  return redis.error_reply('FOREIGN it holds data that is not of meshq; a shard must be a server of its own')
end
call('FLUSHDB', 'ASYNC')
call('HSET', KEY.META, 'epoch', ARGV[1], 'ring', ARGV[2], 'state', 'recovering', 'begun', NOW,
  'run_id', ARGV[4], 'replication_id', ARGV[5], 'generation', ARGV[6], 'leases', 0)
return ARGV[1]
