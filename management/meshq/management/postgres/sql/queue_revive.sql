-- Names queues that were deleted and have got tasks since, as their counters show.
INSERT INTO queues (tenant, name, create_ms)
SELECT DISTINCT c.tenant, c.queue, %(now)s::bigint
FROM unnest(%(tenants)s::text[], %(names)s::text[]) AS q (tenant, name)
JOIN queue_counters AS c ON c.tenant = q.tenant AND c.queue = q.name
ON CONFLICT (tenant, name) DO NOTHING
