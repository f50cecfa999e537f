-- Takes unique keys that nobody has taken, and locks and returns those that somebody has, whether that task
-- is open or not. In the order of the keys, so that no two groups wait for each other.
INSERT INTO unique_keys AS u (tenant, queue, key, task_id, scope, until_ms)
SELECT i.tenant, i.queue, i.key, i.task_id, i.scope, nullif(i.until_ms, 0)
FROM unnest(
    %(tenants)s::text[], %(queues)s::text[], %(keys)s::text[], %(ids)s::uuid[], %(scopes)s::smallint[],
    %(until)s::bigint[]
) AS i (tenant, queue, key, task_id, scope, until_ms)
ON CONFLICT (tenant, queue, key) DO UPDATE SET task_id = u.task_id
RETURNING tenant, queue, key, uuid_send(task_id), scope, until_ms
