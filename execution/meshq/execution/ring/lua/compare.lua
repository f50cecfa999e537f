#!lua flags=allow-oom
-- Says which attempts the shard knows: it holds the same or a later one, or a tombstone of it.
-- KEYS: none. ARGV: epoch, ring, per item: id, attempt.
-- Returns {1 while the shard recovers, per item 1 known, 0 not}.

local bad, shard_state = guard()
if bad then
  return bad
end
local ids, answer = {}, {shard_state == 'recovering' and 1 or 0}
for at = 3, #ARGV, 2 do
  ids[#ids + 1] = ARGV[at]
end
local dead = tombstones(ids)
for index, id in ipairs(ids) do
  local attempt = tonumber(ARGV[2 + 2 * index])
  local held = tonumber(call('HGET', KEY.TASK .. id, 'attempt') or -1)
  if held < attempt and dead[index] then
    local buried_attempt, terminal = string.match(dead[index], '^(%d+) (%d)')
    held = terminal == '1' and attempt or tonumber(buried_attempt)
  end
  answer[#answer + 1] = held >= attempt and 1 or 0
end
return answer
