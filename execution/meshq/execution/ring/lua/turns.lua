-- How the fairness keys of a queue take turns over several task types; made only where a lease call finds several keys
-- in several classes of a queue.
--
-- Each class has a clock and the times of its keys. Since classes are not always asked for together, times of different
-- classes are compared by how far each is from its own clock. What a call takes of a key counts in all classes of the
-- queue that the call names, and their clocks go on together. So a class without workers gathers no claims, and what
-- other workers take of other classes is no debt.

local function make_turns(candidates, look)
  -- A call may name hundreds of classes, each with thousands of keys: it ends early rather than look at so many.
  local LOOKS_AT_MOST = 5000

  -- `moved` has where keys stand that were served, and `now` the clock, both from where the clocks were.
  local function make_group(members)
    local made = {members = members, looks = 0}
    local moved, now = {}, 0

    local names = {}
    for index, member in ipairs(members) do
      names[index] = member.class
    end
    for index, clock in ipairs(call('HMGET', KEY.CLOCKS, unpack(names))) do
      local member = members[index]
      member.group, member.clock, member.pushed, member.heads = made, tonumber(clock or -1), {}, {}
      member.time = member.time - member.clock
    end

    -- Look at a class again, whose keys may have been served in others; false when it has no lanes any more.
    function made.look(member)
      while look(member) do
        local fairness = member.fairness
        local time = moved[fairness]
        made.looks = made.looks + 1
        if not time or member.pushed[fairness] == time then
          member.time = member.time - member.clock
          return true
        end
        call('ZADD', KEY.LANES .. member.class, 'XX', 'GT', member.clock + time, fairness)
        member.pushed[fairness] = time
      end
      return false
    end

    -- Finds the key whose turn it is (by a class where it is the first), the oldest head, and how many keys there
    -- are at least.
    function made.rank()
      local best, oldest, seen, keys, crowded = nil, math.huge, {}, 0, 1
      for _, member in ipairs(members) do
        if not member.gone then
          if not best or member.time < best.time
            or (member.time == best.time and member.fairness < best.fairness) then
            best = member
          end
          oldest = math.min(oldest, member.score)
          keys = keys + (seen[member.fairness] and 0 or 1)
          seen[member.fairness] = true
          crowded = member.crowded and 2 or crowded
        end
      end
      made.best, made.keys = best, math.max(keys, crowded)
      if best then
        best.stands = oldest
      end
    end

    local function head_of(member, fairness)
      if member.fairness == fairness then
        return member.score
      end
      local head = member.heads[fairness]
      if head == nil then
        made.looks = made.looks + 1
        local lowest = call('ZRANGE', KEY.LANE .. member.class .. '/' .. fairness, 0, 0, 'WITHSCORES')
        head = tonumber(lowest[2] or nil) or false
        member.heads[fairness] = head
      end
      return head
    end

    -- The class with the next task of a key, and the score up to which it is the next.
    function made.first_of(fairness, limit)
      local first, lowest
      for _, member in ipairs(members) do
        local head = not member.gone and head_of(member, fairness)
        if head and (not lowest or head < lowest) then
          limit = lowest and math.min(limit or math.huge, lowest) or limit
          first, lowest = member, head
        elseif head then
          limit = math.min(limit or math.huge, head)
        end
      end
      return first, limit
    end

    -- Something of a key was taken off its lane in a class, and so many of it leased.
    function made.serve(chosen, fairness, time, served, weight)
      chosen.heads[fairness] = nil
      if served > 0 then
        now, moved[fairness], made.served = time + (served - 1) / weight, time + served / weight, true
      end
      for _, member in ipairs(members) do
        if not member.gone and (member == chosen or member.fairness == fairness) then
          made.look(member)
        end
      end
      made.tired = made.looks > LOOKS_AT_MOST
    end

    -- Write down what was served.
    function made.keep()
      local clocks = {}
      for _, member in ipairs(made.served and members or {}) do
        local times = {}
        for fairness, time in pairs(member.gone and {} or moved) do
          if member.pushed[fairness] ~= time then
            times[#times + 1] = member.clock + time
            times[#times + 1] = fairness
          end
        end
        if #times > 0 then
          call('ZADD', KEY.LANES .. member.class, 'XX', 'GT', unpack(times))
        end
        if not member.gone then
          clocks[#clocks + 1] = member.class
          clocks[#clocks + 1] = member.clock + now
        end
      end
      if #clocks > 0 then
        call('HSET', KEY.CLOCKS, unpack(clocks))
      end
    end

    return made
  end

  local by_scope, groups = {}, {}
  for _, candidate in ipairs(candidates) do
    local scope = parts(candidate.lane)
    by_scope[scope] = by_scope[scope] or {}
    table.insert(by_scope[scope], candidate)
  end
  for _, members in pairs(by_scope) do
    local several = false
    for _, member in ipairs(members) do
      several = several or member.crowded or member.fairness ~= members[1].fairness
    end
    if #members > 1 and several then
      groups[#groups + 1] = make_group(members)
    end
  end
  return groups
end
