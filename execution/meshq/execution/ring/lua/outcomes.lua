#!lua flags=allow-oom
-- Reads tombstones.
-- KEYS: none. ARGV: epoch, ring, ids.
-- Returns per id the tombstone's text or ''.

local bad = guard()
if bad then
  return bad
end
local ids, answer = {unpack(ARGV, 3)}, {}
local found = tombstones(ids)
for index = 1, #ids do
  answer[index] = found[index] or ''
end
return answer
