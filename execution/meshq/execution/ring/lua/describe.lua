#!lua flags=allow-oom
-- Reads the counters of queues and looks at the heads of their lanes.
-- KEYS: none. ARGV: epoch, ring, lanes to look at per type, scopes (tenant/queue).
-- Returns per scope {ready, delayed, leased, ms when the oldest ready task became ready or 0}.

local bad = guard()
if bad then
  return bad
end
local answers = {}
for at = 4, #ARGV do
  local scope = ARGV[at]
  local figures = call('HMGET', KEY.QUEUE .. scope, 'ready', 'delayed', 'leased')
  local oldest
  for _, kind in ipairs(call('SMEMBERS', KEY.TYPES .. scope)) do
    local class = scope .. '/' .. kind
    for _, fairness in ipairs(call('ZRANGE', KEY.LANES .. class, 0, tonumber(ARGV[3]) - 1)) do
      local head = call('ZRANGE', KEY.LANE .. class .. '/' .. fairness, 0, 0)
      local ready = head[1] and tonumber(call('HGET', KEY.TASK .. id_of(head[1]), 'ready') or nil)
      if ready and (not oldest or ready < oldest) then
        oldest = ready
      end
    end
  end
  answers[#answers + 1] = {
    tonumber(figures[1]) or 0, tonumber(figures[2]) or 0, tonumber(figures[3]) or 0, oldest or 0,
  }
end
return answers
