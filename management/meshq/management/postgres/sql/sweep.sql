-- Reads the next open tasks behind a cursor that nobody has touched for a while, that are not to be
-- cancelled, and that are due
-- soon enough to be on a shard.
SELECT
    uuid_send(id), attempt, state, tenant, coalesce(cancel_reason, '')
FROM open_tasks
WHERE
    id > %(after)s::uuid AND id < %(before)s::uuid AND touched_ms <= %(touched)s::bigint
    AND state NOT IN (1, 6) AND ready_ms <= %(due)s::bigint
ORDER BY id
LIMIT %(limit)s::bigint
