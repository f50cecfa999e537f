-- Lets the first open task of each chain go where it waits for the one before. Only behind the lock of the
-- keys, as a statement of its own, see busy_chains.sql.
UPDATE open_tasks AS o SET
    state = CASE WHEN o.ready_ms > %(now)s::bigint THEN 2 ELSE 3 END,
    ready_ms = greatest(o.ready_ms, %(now)s::bigint), touched_ms = %(now)s::bigint
FROM unnest(%(tenants)s::text[], %(queues)s::text[], %(keys)s::text[]) AS i (tenant, queue, key)
CROSS JOIN LATERAL (
    SELECT n.id
    FROM open_tasks AS n
    WHERE n.tenant = i.tenant AND n.queue = i.queue AND n.ordering_key = i.key
    ORDER BY n.order_seq
    LIMIT 1
) AS head
WHERE o.id = ANY (ARRAY[head.id]) AND o.state < 2
RETURNING
    o.spec, o.priority, o.fairness_key, o.start_by_ms, o.announce_start, <open row>
