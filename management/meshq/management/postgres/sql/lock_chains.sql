-- Locks ordering keys, in their order.
SELECT k.last_seq
FROM ordering_keys AS k
JOIN unnest(%(tenants)s::text[], %(queues)s::text[], %(keys)s::text[]) AS i (tenant, queue, key)
    ON k.tenant = ANY (ARRAY[i.tenant]) AND k.queue = i.queue AND k.key = i.key
ORDER BY i.tenant, i.queue, i.key
FOR UPDATE OF k
