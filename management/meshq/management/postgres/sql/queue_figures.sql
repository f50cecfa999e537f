-- Reads queues with what they are set to and their counters summed over the slots, by name.
SELECT
    q.tenant, q.name, q.create_ms, q.version, q.update_ms, q.settings,
    coalesce(c.created, 0)::bigint, coalesce(c.succeeded, 0)::bigint, coalesce(c.failed, 0)::bigint,
    coalesce(c.cancelled, 0)::bigint, coalesce(c.expired, 0)::bigint,
    coalesce(c.arrival_rate, 0), coalesce(c.completion_rate, 0)
FROM (
    SELECT tenant, name, create_ms, version, update_ms, settings
    FROM queues
    WHERE tenant = %(tenant)s::text AND <which>
    ORDER BY name
    LIMIT %(limit)s::bigint
) AS q
LEFT JOIN LATERAL (
    SELECT
        sum(created) AS created, sum(succeeded) AS succeeded, sum(failed) AS failed, sum(cancelled) AS cancelled,
        sum(expired) AS expired,
        sum(decayed(arrival_rate, %(now)s::bigint - updated_ms)) AS arrival_rate,
        sum(decayed(completion_rate, %(now)s::bigint - updated_ms)) AS completion_rate
    FROM queue_counters
    WHERE tenant = q.tenant AND queue = q.name
) AS c ON true
ORDER BY q.name
