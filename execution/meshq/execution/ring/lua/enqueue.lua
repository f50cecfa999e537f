#!lua
-- Queues attempts. What the shard knows as the same or a later attempt, or has a tombstone of, is skipped; an
-- older attempt is replaced, because the ledger would not ask for a later one if it had not ended.
-- KEYS: none. ARGV: epoch, ring, number of lanes, lanes, then per item: id, attempt, lane's index from 1,
-- ready ms, priority, 1 for a repeat, specification.
-- Returns {ms until the next delayed task is due or -1, indexes from 1 of repeats refused while recovering}.

local bad, shard_state = guard()
if bad then
  return bad
end
local lanes_end = 3 + tonumber(ARGV[3])
local WIDTH = 7
local ids = {}
for at = lanes_end + 1, #ARGV, WIDTH do
  ids[#ids + 1] = ARGV[at]
end
local dead = tombstones(ids)

local refused = {}
for index, id in ipairs(ids) do
  local at = lanes_end + 1 + (index - 1) * WIDTH
  local attempt = tonumber(ARGV[at + 1])
  local lane, ready = ARGV[3 + tonumber(ARGV[at + 2])], ARGV[at + 3]
  local known = call('HMGET', KEY.TASK .. id, 'attempt', 'state', 'lane', 'owner', 'lease', 'leased')
  local skip = known[1] and tonumber(known[1]) >= attempt
  if not skip and dead[index] then
    local buried_attempt, terminal = string.match(dead[index], '^(%d+) (%d)')
    skip = terminal == '1' or tonumber(buried_attempt) >= attempt
  end
  if skip then
    -- Nothing to do.
  elseif ARGV[at + 5] == '1' and shard_state == 'recovering' then
    refused[#refused + 1] = index
  else
    if known[1] then
      detach(id, known[2], known[3], known[4])
      if known[4] and known[4] ~= '' then
        tell('L', known[4], known[1], known[5], known[6], known[3], id, '')
      end
      forget(id)
    end
    local score = tonumber(ready) - tonumber(ARGV[at + 4]) * PRIORITY_BOOST_MS
    call('SET', KEY.SPEC .. id, ARGV[at + 6])
    local state = 'ready'
    local scope = parts(lane)
    if tonumber(ready) > NOW then
      state = 'delayed'
      call('ZADD', KEY.DELAYED, ready, id)
    else
      enter(lane, score, id)
    end
    count(scope, state, 1)
    call('HSET', KEY.TASK .. id, 'attempt', attempt, 'state', state, 'lane', lane, 'ready', ready, 'score', score)
  end
end
flush()
return {due_in(KEY.DELAYED), refused}
