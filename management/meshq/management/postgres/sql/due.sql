-- Reads what waits for a time between two bounds, the earliest first.
SELECT
    <sendable>
FROM open_tasks AS o
WHERE state IN (2, 5) AND (ready_ms, id) > (%(after_ms)s::bigint, %(after_id)s::uuid) AND ready_ms <= %(until)s::bigint
ORDER BY ready_ms, id
LIMIT %(limit)s::bigint
