-- What the limits of queues and keys let a lease call take; made only on a shard where a queue was configured.

-- The candidates are those of the call: the classes of a queue that is closed leave them.
local function make_gates(candidates, shard_state)
  local made = {tired = false}
  local traits_of, until_tokens = limits().traits_of, limits().until_tokens
  local PARK_LIMIT = 500

  -- What a queue has room for: leases and tokens.
  local gates = {}
  function made.gate_of(scope)
    local gate = gates[scope]
    if not gate then
      local conf = limits().conf_of(scope)
      gate = {scope = scope, conf = conf, room = math.huge}
      if conf.shut or (conf.limited and shard_state == 'recovering') then
        gate.room = 0
      elseif conf.max > 0 then
        gate.room = math.max(0, conf.max - conf.foreign - limits().leased_of(scope))
        gate.full = gate.room == 0
      end
      if conf.rate then
        gate.tokens = limits().tokens_of(scope, '', conf.rate)
        gate.had = gate.tokens
      end
      gates[scope] = gate
    end
    return gate
  end

  -- Nothing more of this queue. One that is full is marked, so that the next lease that ends calls who waits.
  function made.close(gate)
    gate.room = 0
    if gate.full and gate.conf.starved ~= 1 then
      call('HSET', KEY.CONF .. gate.scope, 'starved', 1)
    end
    for position = #candidates, 1, -1 do
      if parts(candidates[position].lane) == gate.scope then
        table.remove(candidates, position)
      end
    end
  end

  -- Whether the queue has tokens for a start; if not, it is over with it until there are.
  local function affordable(gate, units)
    if not gate.tokens then
      return true
    end
    local wanted = math.min(units, gate.conf.rate.burst)
    if gate.tokens >= wanted then
      return true
    end
    slots().set_wake('S' .. gate.scope, NOW + until_tokens(gate.tokens, wanted, gate.conf.rate))
    gate.room = 0
    return false
  end

  -- The room of limit keys, as far as this call has looked.
  local keys = {}
  local function key_of(gate, name)
    local full_name = gate.scope .. '/' .. name
    local key = keys[full_name]
    if not key then
      local conf = gate.conf
      key = {scope = gate.scope, name = name, room = math.huge, rate = conf.keyrate}
      if conf.keymax > 0 then
        key.room = conf.keymax - limits().running_of(gate.scope, name)
      end
      if key.rate then
        key.tokens = limits().tokens_of(gate.scope, name, key.rate)
        key.had = key.tokens
      end
      keys[full_name] = key
    end
    return key
  end

  -- Whether a limit key has room for a start; where tokens are missing it is woken when they have come.
  local function key_has_room(key, units)
    if key.room <= 0 then
      return false
    end
    local wanted = key.rate and math.min(units, key.rate.burst)
    if not wanted or key.tokens >= wanted then
      return true
    end
    slots().set_wake('K' .. key.scope .. '/' .. key.name, NOW + until_tokens(key.tokens, wanted, key.rate))
    key.room = 0
    return false
  end

  -- Whether the limits let a task go: 'yes', 'parked', or 'no', and then nothing of its queue is taken any more.
  local parked = 0
  function made.admit(gate, id, member, score, extras)
    local traits = extras ~= '' and traits_of(extras)
    local units = traits and traits.units or 1
    local key = traits and traits.key and (gate.conf.keymax > 0 or gate.conf.keyrate) and key_of(gate, traits.key)
    if key and not key_has_room(key, units) then
      slots().park(gate.scope, gate.lane, key.name, score, member)
      call('HSET', KEY.TASK .. id, 'state', 'parked')
      parked = parked + 1
      made.tired = parked == PARK_LIMIT
      return 'parked'
    end
    if not affordable(gate, units) then
      return 'no'
    end
    gate.room = gate.room - 1
    gate.tokens = gate.tokens and gate.tokens - units
    gate.full = gate.room == 0
    if key then
      key.room = key.room - 1
      key.tokens = key.tokens and key.tokens - units
    end
    return 'yes'
  end

  -- Write down the tokens that were taken.
  function made.keep()
    for _, gate in pairs(gates) do
      if gate.tokens ~= gate.had then
        limits().keep_tokens(gate.scope, '', gate.conf.rate, gate.tokens)
      end
    end
    for _, key in pairs(keys) do
      if key.tokens ~= key.had then
        limits().keep_tokens(key.scope, key.name, key.rate, key.tokens)
      end
    end
  end

  -- Queues from which nothing can be taken at all.
  for position = #candidates, 1, -1 do
    local candidate = candidates[position]
    local gate = candidate and made.gate_of(parts(candidate.lane))
    if gate and gate.room == 0 then
      made.close(gate)
    end
  end
  return made
end
