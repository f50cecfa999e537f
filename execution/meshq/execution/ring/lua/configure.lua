#!lua flags=allow-oom
-- Takes the configurations of queues. One of an older version changes nothing; the same version may come again with
-- other news of where the queue lives. What may be served again is called for at once.
-- KEYS: none. ARGV: epoch, ring, 1 where the shard begins anew and hears what was set until now, per queue:
-- tenant/queue, version, paused, leases at a time, the same per limit key, units, period and burst of the rate, the
-- same per limit key, away, hold, leases elsewhere, how its limits per key are spread over the shards (see Spread),
-- number of limit keys that have leases elsewhere, and each of these keys and how many it has.
-- Returns {ms until something is due or -1, per queue how many leases of it there are here}.

local bad = guard()
if bad then
  return bad
end
local WRITTEN, FOREIGN, SPREAD = 14, 13, 14
local anew = ARGV[3] == '1'

-- The limits of the queue, or of its keys, were counted elsewhere until now, or here by a shard that has forgotten what
-- it gave: the last tokens may have been taken just before. Nothing was ever taken of a rate that is set later, so that
-- its buckets begin full.
local function begins_empty(old, new)
  local was_whole, is_whole = old.max > 0 or old.rate, new.max > 0 or new.rate
  return (anew and old.version == 0 and (new.rate or new.keyrate)) or (old.away == 1 and new.away == 0)
    or (old.keyrate and is_whole and not was_whole)
end

-- Writes how many leases each key has elsewhere. Keys that have fewer now are looked at.
local function write_foreign(scope, first, last)
  local name, at_most = KEY.FOREIGN .. scope, 5000
  local before = call('HGETALL', name)
  call('DEL', name)
  for at = first, last, at_most do
    call('HSET', name, unpack(ARGV, at, math.min(last, at + at_most - 1)))
  end
  local now = {}
  for at = first, last, 2 do
    now[ARGV[at]] = tonumber(ARGV[at + 1])
  end
  for at = 1, #before, 2 do
    if (now[before[at]] or 0) < tonumber(before[at + 1]) then
      slots().set_wake('K' .. scope .. '/' .. before[at], NOW)
    end
  end
end

-- Limits per key that are spread begin uncounted: others may have leases of keys that have their slots here, and there
-- may be keys here that have them elsewhere. Who has counted says so; who has not leaves the figures as they are.
local function spread_of(scope, old, given)
  if given == 0 or given == 2 then
    return given
  end
  return old.spread == 2 and 2 or 1
end

local function write_spread(scope, old, spread)
  if (spread > 0) == (old.spread > 0) then
    return
  elseif spread > 0 then
    call('SADD', KEY.SPREAD, scope)
    call('HSET', KEY.CONF .. scope, 'begun', NOW)
    limits().unsettle()
  else
    call('SREM', KEY.SPREAD, scope)
  end
end

local function write(at, scope, keys)
  local fields, changed, limits_changed = {}, keys > 0, false
  local conf = limits().conf_of(scope)
  local spread = spread_of(scope, conf, tonumber(ARGV[at + SPREAD]))
  local counted = tonumber(ARGV[at + SPREAD]) ~= 1
  for index = 1, WRITTEN do
    local name, value = limits().CONF_FIELDS[index], ARGV[at + index]
    if index == SPREAD then
      value = spread
    elseif index == FOREIGN and not counted then
      value = conf.foreign
    end
    local differs = tonumber(value) ~= conf[name]
    changed = changed or differs
    limits_changed = limits_changed or (differs and index ~= FOREIGN)
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  if not changed then
    return
  end
  call('HSET', KEY.CONF .. scope, unpack(fields))
  call('HDEL', KEY.CONF .. scope, 'starved')
  if not LIMITED then
    LIMITED = '1'
    call('HSET', KEY.META, 'limited', 1)
  end
  write_spread(scope, conf, spread)
  limits().confs[scope] = nil
  if spread > 0 and LIMITED ~= '1' and limits().conf_of(scope).foreign > 0 then
    limits().unsettle()
  end
  if counted and (conf.foreign > 0 or keys > 0) then
    write_foreign(scope, at + WRITTEN + 2, at + WRITTEN + 1 + 2 * keys)
  end
  if begins_empty(conf, limits().conf_of(scope)) then
    call('HSET', KEY.CONF .. scope, 'since', NOW)
    limits().confs[scope].since = NOW
  end
  slots().ring_scope(scope)
  if limits_changed and (conf.keymax > 0 or conf.keyrate) then
    slots().set_wake('A' .. scope, NOW)
  end
end

local answers, at = {-1}, 4
while at <= #ARGV do
  local scope, keys = ARGV[at], tonumber(ARGV[at + WRITTEN + 1])
  if tonumber(ARGV[at + 1]) >= limits().conf_of(scope).version then
    write(at, scope, keys)
  end
  at = at + WRITTEN + 2 + 2 * keys
  answers[#answers + 1] = limits().leased_of(scope)
end
answers[1] = next_due()
return answers
