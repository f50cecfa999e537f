#!lua flags=allow-oom
-- Makes sessions known. The last session of the same worker ends at once if another start of the worker's
-- process had opened it.
-- KEYS: none. ARGV: epoch, ring, session ms, per session: session, tenant/worker, instance key.
-- Returns the number of sessions that were ended.

local bad = guard()
if bad then
  return bad
end
local ended = 0
for at = 4, #ARGV, 3 do
  local session, worker, key = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local last, last_key = string.match(call('HGET', KEY.WORKERS, worker) or '', '^(%S+) (.*)$')
  if last and last ~= session and last_key ~= key then
    call('ZADD', KEY.SESSIONS, 'XX', 1, last)
    tell('E', last, 0, '0:0', 0, '', '', '')
    ended = ended + 1
  end
  call('ZADD', KEY.SESSIONS, NOW + tonumber(ARGV[3]), session)
  call('HSET', KEY.WORKERS, worker, session .. ' ' .. key)
  call('HSET', KEY.SESSION_WORKERS, session, worker)
end
return ended
