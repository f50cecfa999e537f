#!lua flags=allow-oom
-- Takes the configurations of queues. One of an older version changes nothing; the same version may come again with
-- other news of where the queue lives. What may be served again is called for at once.
-- KEYS: none. ARGV: epoch, ring, per queue: tenant/queue, version, paused, leases at a time, the same per limit key,
-- units, period and burst of the rate, the same per limit key, away, hold, leases elsewhere, number of limit keys
-- that have some of these, and each of these keys and how many it has.
-- Returns {ms until something is due or -1, per queue how many leases of it there are here}.

local bad = guard()
if bad then
  return bad
end
local WRITTEN = 13

-- The limits of the queue, or of its keys, were counted elsewhere until now.
local function comes_here(old, new)
  local was_whole, is_whole = old.max > 0 or old.rate, new.max > 0 or new.rate
  return (old.away == 1 and new.away == 0) or (old.keyrate and is_whole and not was_whole)
end

local function write_foreign(scope, first, last)
  call('DEL', KEY.FOREIGN .. scope)
  if last >= first then
    call('HSET', KEY.FOREIGN .. scope, unpack(ARGV, first, last))
  end
end

local function write(at, scope, keys)
  local fields, changed = {}, keys > 0
  local conf = limits().conf_of(scope)
  for index = 1, WRITTEN do
    local name, value = limits().CONF_FIELDS[index], ARGV[at + index]
    changed = changed or tonumber(value) ~= conf[name]
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  if not changed then
    return
  end
  call('HSET', KEY.CONF .. scope, unpack(fields))
  call('HDEL', KEY.CONF .. scope, 'starved')
  limits().confs[scope] = nil
  if conf.foreign > 0 or keys > 0 then
    write_foreign(scope, at + WRITTEN + 2, at + WRITTEN + 1 + 2 * keys)
  end
  if comes_here(conf, limits().conf_of(scope)) then
    call('HSET', KEY.CONF .. scope, 'since', NOW)
    limits().confs[scope].since = NOW
  end
  if not LIMITED then
    LIMITED = '1'
    call('HSET', KEY.META, 'limited', 1)
  end
  slots().ring_scope(scope)
  if conf.keymax > 0 or conf.keyrate then
    slots().set_wake('A' .. scope, NOW)
  end
end

local answers, at = {-1}, 3
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
