#!lua flags=allow-oom
-- Makes sessions known. The last session of the same worker ends at once if another start of the worker's
-- process had opened it. One of the same process goes on, until the caller knows what the worker still holds.
-- KEYS: none. ARGV: epoch, ring, session ms, per session: session, tenant/worker, instance key.
-- Returns {the number of sessions that were ended, the last sessions of the same processes}.

local bad = guard()
if bad then
  return bad
end
local ended, former = 0, {}
for at = 4, #ARGV, 3 do
  local session, worker, key = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local last, last_key = string.match(call('HGET', KEY.WORKERS, worker) or '', '^(%S+) (.*)$')
  if last and last ~= session and last_key == key then
    former[#former + 1] = last
  elseif last and last ~= session then
    call('ZADD', KEY.SESSIONS, 'XX', 1, last)
    tell('E', last, 0, '0:0', 0, '', '', '')
    ended = ended + 1
  end
  call('ZADD', KEY.SESSIONS, NOW + tonumber(ARGV[3]), session)
  call('HSET', KEY.WORKERS, worker, session .. ' ' .. key)
  call('HSET', KEY.SESSION_WORKERS, session, worker)
end
return {ended, former}
