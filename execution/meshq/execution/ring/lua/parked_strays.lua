#!lua flags=allow-oom
-- Finds parked tasks of limit keys whose slots this shard does not have.
-- KEYS: none. ARGV: epoch, ring, tenant/queue, cursor ('0' at first), most tasks.
-- Returns {next cursor ('0' at last; the same when there are more behind it), id, id ...}.

local bad = guard()
if bad then
  return bad
end
local SCANNED = 200
local scope, most = ARGV[3], tonumber(ARGV[5])
local found = call('ZSCAN', KEY.PARKED_KEYS .. scope, ARGV[4], 'COUNT', SCANNED)
local answer = {found[1]}

local function add(key)
  for _, lane in ipairs(call('ZRANGE', KEY.PARKED_LANES .. scope .. '/' .. key, 0, most - 1)) do
    for _, member in ipairs(call('ZRANGE', limits().parked_name(lane, key), 0, most - 1)) do
      if #answer > most then
        answer[1] = ARGV[4]
        return
      end
      answer[#answer + 1] = id_of(member)
    end
  end
end

for at = 1, #found[2], 2 do
  if #answer <= most and not limits().serves(scope, found[2][at]) then
    add(found[2][at])
  end
end
return answer
