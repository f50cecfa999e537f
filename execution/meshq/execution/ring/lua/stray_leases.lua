#!lua flags=allow-oom
-- Counts the leases of limit keys whose slots this shard does not have. These only get fewer.
-- KEYS: none. ARGV: epoch, ring, tenant/queue, cursor ('0' at first), keys to look at instead of all.
-- Returns {next cursor ('0' at last), key, leases, key, leases ...}; nothing at all when the shard does not know its
-- slots, or that the queue has limits per key, so that it may go on to lease such keys.

local bad = guard()
if bad then
  return bad
end
local SCANNED = 1000
local scope = ARGV[3]
if limits().conf_of(scope).spread == 0 or call('HGET', KEY.META, 'slots') ~= ARGV[2] then
  return {}
end
local answer = {'0'}
if #ARGV > 4 then
  local keys = {unpack(ARGV, 5)}
  for index, count in ipairs(call('HMGET', KEY.RUNNING .. scope, unpack(keys))) do
    if count then
      answer[#answer + 1] = keys[index]
      answer[#answer + 1] = count
    end
  end
else
  local found = call('HSCAN', KEY.RUNNING .. scope, ARGV[4], 'COUNT', SCANNED)
  answer[1] = found[1]
  for at = 1, #found[2], 2 do
    if not limits().has_slot(scope, found[2][at]) then
      answer[#answer + 1] = found[2][at]
      answer[#answer + 1] = found[2][at + 1]
    end
  end
end
return answer
