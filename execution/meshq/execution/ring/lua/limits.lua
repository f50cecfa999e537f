-- What is special about tasks, and how queues are configured: for scripts that look at either. The functions are
-- made when the first of them is asked for, because a script begins anew with each call, and most calls need none.

local known_parts = {}
local function parts(lane)
  local known = known_parts[lane]
  if not known then
    known = {string.match(lane, '^([^/]*/[^/]*)/([^/]*)/(.*)$')}
    known_parts[lane] = known
  end
  return known[1], known[2], known[3]
end

local function make_limits()
  local made = {}

  -- The text of a task without traits. With a limit key behind it, it is that of most that have some, for which
  -- a look at its pieces would cost more than all else.
  made.NO_TRAITS = '0 1 1 0 0 0 '

  -- "start_by rate_units fairness_weight start_to_close heartbeat announce limit_key" as a table.
  local function parse(extras)
    local start_by, units, weight, close, beat, key =
      string.match(extras, '^(%d+) (%d+) (%S+) (%d+) (%d+) %d (.*)$')
    return {
      start_by = tonumber(start_by), units = tonumber(units), weight = tonumber(weight),
      close = tonumber(close), beat = tonumber(beat), key = key ~= '' and key,
    }
  end

  local known_traits = {}
  function made.traits_of(extras)
    local known = known_traits[extras]
    if not known then
      if string.sub(extras, 1, #made.NO_TRAITS) == made.NO_TRAITS then
        local key = string.sub(extras, #made.NO_TRAITS + 1)
        known = {start_by = 0, units = 1, weight = 1, close = 0, beat = 0, key = key ~= '' and key}
      else
        known = parse(extras)
      end
      known_traits[extras] = known
    end
    return known
  end

  -- A handler was heard of. The deadline exists as long as the lease does.
  function made.beat(id, lease, extras)
    local ms = extras and made.traits_of(extras).beat or 0
    if ms > 0 then
      call('ZADD', KEY.DEADLINES, 'XX', NOW + ms, 'h' .. id .. lease)
    end
  end

  made.CONF_FIELDS = {
    'version', 'paused', 'max', 'keymax', 'units', 'period', 'burst', 'keyunits', 'keyperiod', 'keyburst',
    'away', 'hold', 'foreign', 'spread', 'starved', 'since', 'begun',
  }

  local function rate_of(units, period, burst)
    return units > 0 and {units = units, period = period, burst = burst}
  end

  -- The configuration of a queue, as numbers; one that has none has no limits.
  made.confs = {}
  function made.conf_of(scope)
    local conf = made.confs[scope]
    if not conf then
      conf = {}
      for index, value in ipairs(call('HMGET', KEY.CONF .. scope, unpack(made.CONF_FIELDS))) do
        conf[made.CONF_FIELDS[index]] = tonumber(value or 0)
      end
      conf.rate = rate_of(conf.units, conf.period, conf.burst)
      conf.keyrate = rate_of(conf.keyunits, conf.keyperiod, conf.keyburst)
      conf.shut = conf.paused + conf.away + conf.hold > 0 or conf.spread == 1
      conf.limited = conf.max > 0 or conf.keymax > 0 or conf.rate or conf.keyrate
      made.confs[scope] = conf
    end
    return conf
  end

  local function bit_of(map, scope, key)
    local slot = tonumber(string.sub(redis.sha1hex(scope .. '/' .. key), 1, 4), 16) % 16384
    local byte = string.byte(map, math.floor(slot / 8) + 1)
    return byte ~= nil and bit.band(byte, bit.lshift(1, slot % 8)) ~= 0
  end

  -- Whether this shard has the slot of a limit key. It has none before it was told of the ring that it has heard of.
  local served
  function made.has_slot(scope, key)
    if not served then
      served = call('HGET', KEY.META, 'slots') == ARGV[2] and call('GET', KEY.SERVED) or ''
    end
    return bit_of(served, scope, key)
  end

  -- Whether tasks of a limit key may be leased here. Of a queue that is spread over the shards by its keys this shard
  -- leases only those whose slots it has; once it is settled in this ring it holds no others.
  function made.serves(scope, key)
    return LIMITED == 'r' .. ARGV[2] or made.conf_of(scope).spread == 0 or made.has_slot(scope, key)
  end

  -- There may be keys here now that this shard does not serve.
  function made.unsettle()
    if LIMITED ~= '1' then
      LIMITED = '1'
      call('HSET', KEY.META, 'limited', 1)
    end
    call('HINCRBY', KEY.META, 'changes', 1)
  end

  -- When the slot of a key came to this shard, if that was after its queue had limits per key: until then it was
  -- counted elsewhere.
  local arrival, arrived
  local function arrived_at(scope, key)
    local conf = made.conf_of(scope)
    if conf.spread == 0 then
      return 0
    end
    arrival = arrival or tonumber(call('HGET', KEY.META, 'arrived') or 0)
    if arrival <= conf.begun or NOW - arrival > conf.keyrate.burst * conf.keyrate.period / conf.keyrate.units then
      return 0
    end
    arrived = arrived or call('GET', KEY.ARRIVED) or ''
    return bit_of(arrived, scope, key) and arrival or 0
  end

  -- Where a lane's tasks stand that wait for their limit key. Both names may hold slashes.
  function made.parked_name(lane, key)
    return KEY.PARKED .. #key .. '/' .. key .. '/' .. lane
  end

  -- How many leases of a queue there are.
  function made.leased_of(scope)
    return tonumber(call('HGET', KEY.QUEUE .. scope, 'leased') or 0)
  end

  -- The same of many limit keys, as a list.
  function made.running_of(scope, keys)
    local here = call('HMGET', KEY.RUNNING .. scope, unpack(keys))
    local foreign = made.conf_of(scope).foreign > 0 and call('HMGET', KEY.FOREIGN .. scope, unpack(keys)) or {}
    local running = {}
    for index = 1, #keys do
      running[index] = (tonumber(here[index]) or 0) + (tonumber(foreign[index]) or 0)
    end
    return running
  end

  -- The tokens that buckets hold now, as a list; a queue's own has the key ''. One that nobody knows is full, or was
  -- empty when its queue came here or its shard began anew, because its last tokens may have been taken just before;
  -- so was one that is known from an earlier stay of its queue. It may be below zero: who needs more than it can hold
  -- waits until it is full and takes them all the same.
  function made.tokens_of(scope, keys, rate)
    local names, held = {}, {}
    for index, key in ipairs(keys) do
      names[index] = KEY.TOKENS .. scope .. '/' .. key
    end
    for index, text in ipairs(call('MGET', unpack(names))) do
      local tokens, filled = string.match(text or '0 0', '^(%S+) (%S+)$')
      tokens, filled = tonumber(tokens), tonumber(filled)
      local came = made.conf_of(scope).since
      if keys[index] ~= '' then
        came = math.max(came, arrived_at(scope, keys[index]))
      end
      if filled <= came then
        tokens, filled = math.min(tokens, 0), came
      end
      local flown = math.max(0, NOW - filled) * rate.units / rate.period
      held[index] = math.min(rate.burst, tokens + flown)
    end
    return held
  end

  -- Milliseconds until a bucket holds so many tokens, at least one.
  function made.until_tokens(tokens, wanted, rate)
    return math.max(1, math.ceil((wanted - tokens) * rate.period / rate.units))
  end

  function made.keep_tokens(scope, key, rate, tokens)
    local text = string.format('%.6f %.0f', tokens, NOW)
    local full_in = string.format('%.0f', made.until_tokens(tokens, rate.burst, rate))
    call('SET', KEY.TOKENS .. scope .. '/' .. key, text, 'PX', full_in)
  end

  return made
end

local made_limits
local function limits()
  made_limits = made_limits or make_limits()
  return made_limits
end
