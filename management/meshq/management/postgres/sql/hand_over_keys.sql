-- Gives unique keys, which the transaction has locked, to other tasks.
UPDATE unique_keys AS u SET task_id = i.task_id, scope = i.scope, until_ms = nullif(i.until_ms, 0)
FROM unnest(
    %(tenants)s::text[], %(queues)s::text[], %(keys)s::text[], %(ids)s::uuid[], %(scopes)s::smallint[],
    %(until)s::bigint[]
) AS i (tenant, queue, key, task_id, scope, until_ms)
WHERE u.tenant = ANY (ARRAY[i.tenant]) AND u.queue = i.queue AND u.key = i.key
