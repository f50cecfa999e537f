-- Taking waiting tasks off this shard, to be queued on another: for scripts that return such tasks.

-- A function that appends a task to an answer and forgets it, so that nothing is left but what the caller takes out of
-- lanes and the like. It does nothing, and says so, when the specifications get larger than so many bytes; one task
-- goes however large it is.
local function packer(answer, budget)
  local first = #answer
  return function(id, task)
    local spec = call('GET', KEY.SPEC .. id) or ''
    local at = #answer
    if at > first and #spec > budget then
      return false
    end
    budget = budget - #spec
    answer[at + 1], answer[at + 2], answer[at + 3] = id, tonumber(task[AT.ATTEMPT]), task[AT.LANE]
    answer[at + 4], answer[at + 5] = task[AT.READY], task[AT.SCORE]
    answer[at + 6], answer[at + 7] = task[AT.EXTRAS] or '', spec
    forget(id)
    return true
  end
end
