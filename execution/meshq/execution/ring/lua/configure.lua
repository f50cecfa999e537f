#!lua flags=allow-oom
-- Takes the configurations of queues. One of an older version changes nothing; the same version may come again with
-- other news of where the queue lives. What may be served again is called for at once.
-- KEYS: none. ARGV: epoch, ring, per queue: tenant/queue, version, paused, leases at a time, the same per limit key,
-- units, period and burst of the rate, the same per limit key, away, hold, leases elsewhere.
-- Returns {ms until something is due or -1, per queue how many leases of it there are here}.

local bad = guard()
if bad then
  return bad
end
local WIDTH = 14
local WRITTEN = WIDTH - 1

local function write(at, scope)
  local fields, changed = {}, false
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
  local keymax, keyrate = conf.keymax, conf.keyrate
  call('HSET', KEY.CONF .. scope, unpack(fields))
  call('HDEL', KEY.CONF .. scope, 'starved')
  limits().confs[scope] = nil
  if not LIMITED then
    LIMITED = '1'
    call('HSET', KEY.META, 'limited', 1)
  end
  slots().ring_scope(scope)
  if keymax > 0 or keyrate then
    slots().set_wake('A' .. scope, NOW)
  end
end

local answers = {-1}
for at = 3, #ARGV, WIDTH do
  local scope = ARGV[at]
  if tonumber(ARGV[at + 1]) >= limits().conf_of(scope).version then
    write(at, scope)
  end
  answers[#answers + 1] = limits().leased_of(scope)
end
answers[1] = next_due()
return answers
