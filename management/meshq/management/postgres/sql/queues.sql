-- Reads queues with their counters summed over the slots, by name.
SELECT
    q.tenant, q.name, q.create_ms,
    coalesce(sum(c.created), 0)::bigint, coalesce(sum(c.succeeded), 0)::bigint,
    coalesce(sum(c.failed), 0)::bigint, coalesce(sum(c.cancelled), 0)::bigint,
    coalesce(sum(c.expired), 0)::bigint,
    coalesce(sum(decayed(c.arrival_rate, %(now)s::bigint - c.updated_ms)), 0),
    coalesce(sum(decayed(c.completion_rate, %(now)s::bigint - c.updated_ms)), 0)
FROM (
    SELECT tenant, name, create_ms
    FROM queues
    WHERE tenant = %(tenant)s::text AND name > %(after)s::text AND (%(name)s::text = '' OR name = %(name)s::text)
    ORDER BY name
    LIMIT %(limit)s::bigint
) AS q
LEFT JOIN queue_counters AS c ON c.tenant = q.tenant AND c.queue = q.name
GROUP BY q.tenant, q.name, q.create_ms
ORDER BY q.name
