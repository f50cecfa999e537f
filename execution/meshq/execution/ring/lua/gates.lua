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
        gate.tokens = limits().tokens_of(scope, {''}, conf.rate)[1]
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

  -- The room of limit keys, as far as this call has looked, by scope and name.
  local keys = {}

  -- Reads the room of keys that were not met yet, of all at once.
  local function read(gate, met, names)
    local conf, rate = gate.conf, gate.conf.keyrate
    local running = conf.keymax > 0 and limits().running_of(gate.scope, names)
    local tokens = rate and limits().tokens_of(gate.scope, names, rate)
    for index, name in ipairs(names) do
      local held = tokens and tokens[index]
      local room = running and conf.keymax - running[index] or math.huge
      if not limits().serves(gate.scope, name) then
        room = 0
      end
      met[name] = {scope = gate.scope, name = name, room = room, rate = rate, tokens = held, had = held}
    end
  end

  -- Looks at the keys of members of a lane that are about to be taken, which come with their scores.
  function made.meet(gate, members, first, last)
    if gate.conf.keymax == 0 and not gate.conf.keyrate then
      return
    end
    local met, names = keys[gate.scope] or {}, {}
    keys[gate.scope] = met
    for at = first, last, 2 do
      local _, extras = split_member(members[at])
      local name = extras and traits_of(extras).key
      if name and met[name] == nil then
        met[name] = false
        names[#names + 1] = name
      end
    end
    if #names > 0 then
      read(gate, met, names)
    end
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
    local key = traits and traits.key and keys[gate.scope] and keys[gate.scope][traits.key]
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
    for scope, met in pairs(keys) do
      for name, key in pairs(met) do
        if key.tokens ~= key.had then
          limits().keep_tokens(scope, name, key.rate, key.tokens)
        end
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
