-- What execution has to know of queues; a lower version than the stored one changes nothing.
INSERT INTO queue_configs (tenant, queue, version, config)
SELECT q.tenant, q.queue, q.version, q.config
FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bytea[]) AS q (tenant, queue, version, config)
ON CONFLICT (tenant, queue) DO UPDATE
SET version = excluded.version, config = excluded.config
WHERE queue_configs.version < excluded.version
