-- What execution has to know of queues; a lower version than the stored one changes nothing. What was once homed stays so.
INSERT INTO queue_configs (tenant, queue, version, config, homed)
SELECT q.tenant, q.queue, q.version, q.config, q.homed
FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bytea[], %s::boolean[])
    AS q (tenant, queue, version, config, homed)
ON CONFLICT (tenant, queue) DO UPDATE
SET version = greatest(queue_configs.version, excluded.version),
    config = CASE WHEN queue_configs.version < excluded.version THEN excluded.config ELSE queue_configs.config END,
    homed = queue_configs.homed OR excluded.homed
WHERE queue_configs.version < excluded.version OR (excluded.homed AND NOT queue_configs.homed)
