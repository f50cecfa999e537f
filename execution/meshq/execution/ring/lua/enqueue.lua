#!lua
-- Queues attempts. What the shard knows as the same or a later attempt, or has a tombstone of, is skipped; an
-- older attempt is replaced, because the ledger would not ask for a later one if it had not ended.
-- KEYS: none. ARGV: epoch, ring, instance, number of lanes, lanes, then per item: id, attempt, lane's index from 1,
-- ready ms, priority, 1 for a repeat, extras, specification. The instance is not called: it asks by itself.
-- Returns {ms until something is due or -1, indexes from 1 of repeats refused while recovering,
-- indexes from 1 of items whose queue lives elsewhere}.

local bad, shard_state = guard()
if bad then
  return bad
end
local LANES_BEGIN = 4
local lanes_end = LANES_BEGIN + tonumber(ARGV[LANES_BEGIN])
asking = ARGV[3]
for at = LANES_BEGIN + 1, lanes_end do
  local scope, kind = parts(ARGV[at])
  asked_for[scope .. '/' .. kind] = true
end
local WIDTH, PRIORITY_BOOST_MS = 8, 60000
local ids = {}
for at = lanes_end + 1, #ARGV, WIDTH do
  ids[#ids + 1] = ARGV[at]
end
local dead = tombstones(ids)

local function known_as(id, attempt)
  local held = call('HGET', KEY.TASK .. id, 'attempt')
  return held and tonumber(held) >= tonumber(attempt)
end

-- The shard has the task. If it is an older attempt, that one goes, with whatever lease it has.
local function replaced(id, attempt, spec)
  local task = fetch_all(id)
  if task[AT.ATTEMPT] and tonumber(task[AT.ATTEMPT]) >= tonumber(attempt) then
    return false
  end
  if task[AT.ATTEMPT] then
    detach(id, task)
  end
  if task[AT.STATE] == 'leased' then
    tell('L', task[AT.OWNER], task[AT.ATTEMPT], task[AT.LEASE], task[AT.LEASED], task[AT.LANE], id, '')
  end
  flush_removals()
  call('DEL', KEY.TASK .. id)
  call('SET', KEY.SPEC .. id, spec)
  return true
end

local refused, misrouted = {}, {}
for index, id in ipairs(ids) do
  local at = lanes_end + 1 + (index - 1) * WIDTH
  -- Numbers that are passed on stay texts: to write them anew for each task costs more than all else here.
  local attempt = ARGV[at + 1]
  local lane, ready = ARGV[LANES_BEGIN + tonumber(ARGV[at + 2])], ARGV[at + 3]
  local tomb = dead[index]
  if tomb then
    local buried_attempt, terminal = string.match(tomb, '^(%d+) (%d)')
    tomb = terminal == '1' or tonumber(buried_attempt) >= tonumber(attempt)
  end
  if tomb then
    -- It has ended, or is to be cancelled.
  elseif ARGV[at + 5] == '1' and shard_state == 'recovering' then
    if not known_as(id, attempt) then
      refused[#refused + 1] = index
    end
  elseif LIMITED and limits().conf_of(parts(lane)).away == 1 then
    if not known_as(id, attempt) then
      misrouted[#misrouted + 1] = index
    end
  elseif call('SET', KEY.SPEC .. id, ARGV[at + 7], 'NX') or replaced(id, attempt, ARGV[at + 7]) then
    local score, priority = ready, ARGV[at + 4]
    if priority ~= '0' then
      score = tonumber(ready) - tonumber(priority) * PRIORITY_BOOST_MS
    end
    local extras = ARGV[at + 6] ~= '' and ARGV[at + 6]
    local state = place(id, attempt, lane, ready, score, extras)
    if extras then
      call('HSET', KEY.TASK .. id, 'attempt', attempt, 'state', state, 'lane', lane, 'ready', ready, 'score', score,
        'extras', extras)
    else
      call('HSET', KEY.TASK .. id, 'attempt', attempt, 'state', state, 'lane', lane, 'ready', ready, 'score', score)
    end
    if ARGV[at + 5] == '1' then
      call('HSET', KEY.TASK .. id, 'handed', 1)
    end
  end
end
flush()
return {next_due(), refused, misrouted}
