-- Locks the next counters of chains, leaving out those that somebody has locked.
SELECT tenant, queue, key
FROM ordering_keys
WHERE (tenant, queue, key) > (%(tenant)s::text, %(queue)s::text, %(key)s::text)
ORDER BY tenant, queue, key
LIMIT %(limit)s::bigint
FOR UPDATE SKIP LOCKED
