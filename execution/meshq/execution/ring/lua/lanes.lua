-- Lanes, counters and tombstones: for scripts that make, end or queue something. It stands behind the limits.
--
-- A command costs more than what it does, so removals, changes of lanes, counters and tombstones are collected
-- and written by flush(): a frame costs a few commands per task and not a dozen.

local counts = {}
local function count(scope, field, by)
  local fields = counts[scope]
  if not fields then
    fields = {}
    counts[scope] = fields
  end
  fields[field] = (fields[field] or 0) + by
end

-- Removals: from sorted sets, from sets, of keys.
local unsorted, unset, deleted, forgotten = {}, {}, {}, {}
local function collect(removals, key, member)
  local members = removals[key]
  if not members then
    members = {}
    removals[key] = members
  end
  members[#members + 1] = member
end

local function flush_removals()
  for key, members in pairs(unsorted) do
    call('ZREM', key, unpack(members))
  end
  for key, members in pairs(unset) do
    call('SREM', key, unpack(members))
  end
  if #deleted > 0 then
    call('DEL', unpack(deleted))
  end
  unsorted, unset, deleted, forgotten = {}, {}, {}, {}
end

local function forget(id)
  local at = #deleted
  deleted[at + 1], deleted[at + 2] = KEY.TASK .. id, KEY.SPEC .. id
  forgotten[id] = true
end

-- How a lane names a task. Extras come along, so that who takes it need not ask for them.
local function member_of(id, attempt, extras)
  return extras and id .. attempt .. '+' .. extras or id .. attempt
end

local function split_member(member)
  local attempt, extras = string.match(member, '^(%d+)%+(.*)$', ID_BYTES + 1)
  return tonumber(attempt), extras
end

local entering, weights = {}, {}
local function enter(lane, score, member, extras)
  local members = entering[lane]
  if not members then
    members = {}
    entering[lane] = members
  end
  members[#members + 1] = score
  members[#members + 1] = member
  if extras or WEIGHTED then
    weights[lane] = extras and limits().traits_of(extras).weight or 1
  end
end

-- A lane that ran empty leaves the index; a class without lanes is forgotten.
local function prune(lane)
  if call('EXISTS', KEY.LANE .. lane) == 1 then
    return
  end
  local scope, kind, fairness = parts(lane)
  local class = scope .. '/' .. kind
  call('ZREM', KEY.LANES .. class, fairness)
  if WEIGHTED then
    call('HDEL', KEY.WEIGHTS .. class, fairness)
  end
  if call('EXISTS', KEY.LANES .. class) == 0 then
    call('SREM', KEY.TYPES .. scope, kind)
    call('HDEL', KEY.CLOCKS, class)
  end
end

-- The instance that asks by itself for what this call puts into the lanes of some classes.
local asking, asked_for = nil, {}

local function ring_bell(scope, kind)
  local instances = call('HGET', KEY.WAITING .. scope, kind)
  if instances then
    local class = scope .. '/' .. kind
    call('HDEL', KEY.WAITING .. scope, kind)
    for instance in string.gmatch(instances, '%S+') do
      if instance ~= asking or not asked_for[class] then
        call('PUBLISH', KEY.BELL .. instance, 'R ' .. class)
      end
    end
  end
end

-- When the earliest thing is due that this call has brought about.
local soonest

local function next_due()
  local due = due_in(KEY.DELAYED)
  if soonest then
    local ms = math.max(0, math.ceil(soonest - NOW))
    return due >= 0 and math.min(due, ms) or ms
  end
  return due
end

local buried = {}
local function bury(id, attempt, terminal, outcome)
  buried[#buried + 1] = id
  buried[#buried + 1] = attempt .. ' ' .. terminal .. ' ' .. outcome
end
