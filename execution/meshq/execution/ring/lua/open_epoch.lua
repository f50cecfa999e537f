#!lua flags=allow-oom
-- Begins a new epoch: whatever the shard holds is dropped. Only one of several claimants gets it.
-- KEYS: none. ARGV: new epoch, ring, epoch that the claimant saw or '', run id, replication id.
-- Returns the epoch that holds now.

local seen = call('HGET', KEY.META, 'epoch') or ''
if seen ~= ARGV[3] then
  return seen
end
call('FLUSHDB', 'ASYNC')
call('HSET', KEY.META, 'epoch', ARGV[1], 'ring', ARGV[2], 'state', 'recovering', 'begun', NOW,
  'run_id', ARGV[4], 'replication_id', ARGV[5], 'leases', 0)
return ARGV[1]
