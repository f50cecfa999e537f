-- Reads tasks that are to be cancelled and whose wish is older than a while, behind a cursor.
SELECT
    uuid_send(id), attempt, state, tenant, coalesce(cancel_reason, '')
FROM open_tasks
WHERE state = 6 AND id > %(after)s::uuid AND touched_ms <= %(touched)s::bigint
ORDER BY id
LIMIT %(limit)s::bigint
