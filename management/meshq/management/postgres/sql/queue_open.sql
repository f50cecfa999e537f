-- Counts the open tasks of queues by their counters.
SELECT c.tenant, c.queue, sum(c.created - c.succeeded - c.failed - c.cancelled - c.expired)::bigint
FROM unnest(%(tenants)s::text[], %(names)s::text[]) AS q (tenant, name)
JOIN queue_counters AS c ON c.tenant = q.tenant AND c.queue = q.name
GROUP BY c.tenant, c.queue
