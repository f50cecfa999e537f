#!lua flags=allow-oom
-- Makes a lease one that is finished later: it belongs to no session or poll any more, keeps its slots, and lasts as
-- long as it is told or renewed. Its handler has returned, so nobody beats for it and its time to close is over.
-- KEYS: none. ARGV: epoch, ring, per item: id, lease, ms that it lasts.
-- Returns {ms until something is due or -1, per item 1 done, 0 when it is not held}.

local bad = guard()
if bad then
  return bad
end
local answers = {-1}
for at = 3, #ARGV, 3 do
  local id, lease, lasts = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local task = fetch(id)
  local held = task[AT.LEASE] == lease and task[AT.STATE] == 'leased'
  if held then
    local key, owner = KEY.TASK .. id, task[AT.OWNER]
    if owner ~= '' then
      local worker = string.match(call('HGET', KEY.SESSION_WORKERS, owner) or '', '[^/]*$')
      call('ZREM', KEY.DELIVERIES, id .. lease)
      call('SREM', KEY.SESSION .. owner, id)
      call('HSET', key, 'worker', worker)
    end
    call('HSET', key, 'owner', '', 'ttl', lasts, 'deferred', 1)
    call('ZADD', KEY.POLLED, NOW + lasts, id)
    slots().due_at(NOW + lasts)
    if task[AT.EXTRAS] then
      slots().end_handler(id, lease, limits().traits_of(task[AT.EXTRAS]))
    end
  end
  answers[#answers + 1] = held and 1 or 0
end
flush()
answers[1] = next_due()
return answers
