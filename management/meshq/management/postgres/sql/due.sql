-- Reads what waits for a time between two bounds, the earliest first.
SELECT
    uuid_send(id), attempt, tenant, queue, type, ready_ms, priority, fairness_key, true, spec
FROM open_tasks
WHERE state IN (2, 5) AND (ready_ms, id) > (%(after_ms)s::bigint, %(after_id)s::uuid) AND ready_ms <= %(until)s::bigint
ORDER BY ready_ms, id
LIMIT %(limit)s::bigint
