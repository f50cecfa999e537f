#!lua flags=allow-oom
-- Says what tasks wait for.
-- KEYS: none. ARGV: epoch, ring, ids.
-- Returns per task: state, why, ms when it is due or 0, limit, in use, tasks ahead in its lane (see Explained).

local bad, shard_state = guard()
if bad then
  return bad
end

-- What keeps the queue as a whole: why, due, limit, in use; nothing when it is open.
local function queue_keeps(scope, conf, units)
  if conf.paused == 1 then
    return 'paused'
  elseif conf.away == 1 or conf.spread == 1 then
    return 'moving'
  elseif conf.limited and shard_state == 'recovering' then
    return 'recovering'
  elseif conf.hold == 1 then
    return 'limit', 0, conf.max, limits().leased_of(scope) + conf.foreign
  end
  if conf.max > 0 and limits().leased_of(scope) + conf.foreign >= conf.max then
    return 'limit', 0, conf.max, limits().leased_of(scope) + conf.foreign
  end
  if conf.rate then
    local tokens, wanted = limits().tokens_of(scope, {''}, conf.rate)[1], math.min(units, conf.rate.burst)
    if tokens < wanted then
      return 'rate', NOW + limits().until_tokens(tokens, wanted, conf.rate), conf.rate.units
    end
  end
end

-- The same of its limit key.
local function key_keeps(scope, conf, key, units)
  if not limits().serves(scope, key) then
    return 'moving'
  end
  local running = conf.keymax > 0 and limits().running_of(scope, {key})[1] or 0
  if conf.keymax > 0 and running >= conf.keymax then
    return 'key', 0, conf.keymax, running
  end
  if conf.keyrate then
    local tokens, wanted = limits().tokens_of(scope, {key}, conf.keyrate)[1], math.min(units, conf.keyrate.burst)
    if tokens < wanted then
      return 'key_rate', NOW + limits().until_tokens(tokens, wanted, conf.keyrate), conf.keyrate.units
    end
  end
end

local function kept_by(scope, traits)
  if not LIMITED then
    return nil
  end
  local conf, units = limits().conf_of(scope), traits and traits.units or 1
  local why, due, limit, in_use = queue_keeps(scope, conf, units)
  if not why and traits and traits.key then
    why, due, limit, in_use = key_keeps(scope, conf, traits.key, units)
  end
  return why, due, limit, in_use
end

local answers = {}
local function answer(state, why, due, limit, in_use, ahead)
  for _, value in ipairs({state, why or '', due or 0, limit or 0, in_use or 0, ahead or 0}) do
    answers[#answers + 1] = value
  end
end

for at = 3, #ARGV do
  local id = ARGV[at]
  local task = call('HMGET', KEY.TASK .. id, 'state', 'attempt', 'lane', 'extras', 'ready')
  local state = task[1] or 'none'
  if state == 'closing' or state == 'returning' then
    state = 'leased'
  end
  if state == 'delayed' then
    answer(state, 'not_due', tonumber(task[5]))
  elseif state == 'ready' or state == 'parked' then
    local scope, traits = parts(task[3]), task[4] and limits().traits_of(task[4])
    local why, due, limit, in_use = kept_by(scope, traits)
    local key = state == 'ready' and KEY.LANE .. task[3] or limits().parked_name(task[3], traits.key)
    local ahead = call('ZRANK', key, id .. task[2] .. (traits and '+' .. task[4] or ''))
    answer(state, why or 'line', due, limit, in_use, ahead or 0)
  else
    answer(state)
  end
end
return answers
