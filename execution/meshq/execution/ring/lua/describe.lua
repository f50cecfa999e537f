#!lua flags=allow-oom
-- Reads the counters of queues and looks at the heads of their lanes.
-- KEYS: none. ARGV: epoch, ring, lanes to look at per type (and limit keys that wait), scopes (tenant/queue).
-- Returns per scope {ready, delayed, leased, ms when the oldest of these heads became ready or 0}.

local bad = guard()
if bad then
  return bad
end
local answers = {}
for at = 4, #ARGV do
  local scope = ARGV[at]
  local figures = call('HMGET', KEY.QUEUE .. scope, 'ready', 'delayed', 'leased')
  local oldest
  local function look(head)
    local ready = head and tonumber(call('HGET', KEY.TASK .. id_of(head), 'ready') or nil)
    if ready and (not oldest or ready < oldest) then
      oldest = ready
    end
  end
  for _, kind in ipairs(call('SMEMBERS', KEY.TYPES .. scope)) do
    local class = scope .. '/' .. kind
    for _, fairness in ipairs(call('ZRANGE', KEY.LANES .. class, 0, tonumber(ARGV[3]) - 1)) do
      look(call('ZRANGE', KEY.LANE .. class .. '/' .. fairness, 0, 0)[1])
    end
  end
  for _, key in ipairs(LIMITED and call('ZRANGE', KEY.PARKED_KEYS .. scope, 0, tonumber(ARGV[3]) - 1) or {}) do
    local lane = call('ZRANGE', KEY.PARKED_LANES .. scope .. '/' .. key, 0, 0)[1]
    look(call('ZRANGE', limits().parked_name(lane, key), 0, 0)[1])
  end
  answers[#answers + 1] = {
    tonumber(figures[1]) or 0, tonumber(figures[2]) or 0, tonumber(figures[3]) or 0, oldest or 0,
  }
end
return answers
