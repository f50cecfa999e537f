-- Removes counters of chains without open tasks. Only behind their lock, as a statement of its own, see
-- busy_chains.sql.
DELETE FROM ordering_keys AS k
USING unnest(%(tenants)s::text[], %(queues)s::text[], %(keys)s::text[]) AS i (tenant, queue, key)
WHERE
    k.tenant = ANY (ARRAY[i.tenant]) AND k.queue = i.queue AND k.key = i.key
    AND NOT EXISTS (
        SELECT FROM open_tasks AS o
        WHERE o.tenant = i.tenant AND o.queue = i.queue AND o.ordering_key = i.key
        OFFSET 0
    )
