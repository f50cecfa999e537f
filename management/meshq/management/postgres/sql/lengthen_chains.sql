-- Takes places in the chains of ordering keys and locks the keys, in their order; returns the last place
-- of each.
INSERT INTO ordering_keys AS k (tenant, queue, key, last_seq)
SELECT i.tenant, i.queue, i.key, i.places
FROM unnest(%(tenants)s::text[], %(queues)s::text[], %(keys)s::text[], %(places)s::bigint[])
    AS i (tenant, queue, key, places)
ON CONFLICT (tenant, queue, key) DO UPDATE SET last_seq = k.last_seq + excluded.last_seq
RETURNING tenant, queue, key, last_seq
