-- What is special about tasks, and how queues are configured: for scripts that look at either.

-- "start_by rate_units fairness_weight start_to_close heartbeat announce limit_key" as a table.
local known_traits = {}
local function traits_of(extras)
  local known = known_traits[extras]
  if not known then
    local start_by, units, weight, close, beat, key =
      string.match(extras, '^(%d+) (%d+) (%S+) (%d+) (%d+) %d (.*)$')
    known = {
      start_by = tonumber(start_by), units = tonumber(units), weight = tonumber(weight),
      close = tonumber(close), beat = tonumber(beat), key = key ~= '' and key,
    }
    known_traits[extras] = known
  end
  return known
end

-- A handler was heard of. The deadline exists as long as the lease does.
local function beat(id, lease, extras)
  local ms = extras and traits_of(extras).beat or 0
  if ms > 0 then
    call('ZADD', KEY.DEADLINES, 'XX', NOW + ms, 'h' .. id .. lease)
  end
end

local known_parts = {}
local function parts(lane)
  local known = known_parts[lane]
  if not known then
    known = {string.match(lane, '^([^/]*/[^/]*)/([^/]*)/(.*)$')}
    known_parts[lane] = known
  end
  return known[1], known[2], known[3]
end

local CONF_FIELDS = {
  'version', 'paused', 'max', 'keymax', 'units', 'period', 'burst', 'keyunits', 'keyperiod', 'keyburst',
  'away', 'hold', 'foreign', 'starved',
}

local function rate_of(units, period, burst)
  return units > 0 and {units = units, period = period, burst = burst}
end

-- The configuration of a queue, as numbers; one that has none has no limits.
local confs = {}
local function conf_of(scope)
  local conf = confs[scope]
  if not conf then
    conf = {}
    for index, value in ipairs(call('HMGET', KEY.CONF .. scope, unpack(CONF_FIELDS))) do
      conf[CONF_FIELDS[index]] = tonumber(value or 0)
    end
    conf.rate = rate_of(conf.units, conf.period, conf.burst)
    conf.keyrate = rate_of(conf.keyunits, conf.keyperiod, conf.keyburst)
    conf.shut = conf.paused + conf.away + conf.hold > 0
    conf.limited = conf.max > 0 or conf.keymax > 0 or conf.rate or conf.keyrate
    confs[scope] = conf
  end
  return conf
end

-- How many leases of a queue, or of a limit key of it, there are.
local function leased_of(scope)
  return tonumber(call('HGET', KEY.QUEUE .. scope, 'leased') or 0)
end

local function running_of(scope, key)
  return tonumber(call('HGET', KEY.RUNNING .. scope, key) or 0)
end

-- The tokens that a bucket holds now. A bucket that nobody knows is full. It may be below zero: who needs more
-- than it can hold waits until it is full and takes them all the same.
local function tokens_of(scope, key, rate)
  local tokens, filled = string.match(call('GET', KEY.TOKENS .. scope .. '/' .. key) or '', '^(%S+) (%S+)$')
  if not tokens then
    return rate.burst
  end
  local flown = math.max(0, NOW - tonumber(filled)) * rate.units / rate.period
  return math.min(rate.burst, tonumber(tokens) + flown)
end

-- Milliseconds until a bucket holds so many tokens, at least one.
local function until_tokens(tokens, wanted, rate)
  return math.max(1, math.ceil((wanted - tokens) * rate.period / rate.units))
end

local function keep_tokens(scope, key, rate, tokens)
  local text = string.format('%.6f %.0f', tokens, NOW)
  call('SET', KEY.TOKENS .. scope .. '/' .. key, text, 'PX', string.format('%.0f', until_tokens(tokens, rate.burst, rate)))
end
