-- Reads which ordering keys have open tasks. Only behind the lock of the keys, as a statement of its own:
-- what others have committed before they let go of the lock is seen then.
SELECT i.tenant, i.queue, i.key
FROM unnest(%(tenants)s::text[], %(queues)s::text[], %(keys)s::text[]) AS i (tenant, queue, key)
WHERE EXISTS (
    SELECT FROM open_tasks AS o
    WHERE o.tenant = i.tenant AND o.queue = i.queue AND o.ordering_key = i.key
    OFFSET 0
)
