-- Deletes a queue with its counters, and leaves word for the instances. The caller holds the lock of the
-- settings. Returns whether there was no open task.
WITH counters AS MATERIALIZED (
    SELECT created - succeeded - failed - cancelled - expired AS open
    FROM queue_counters
    WHERE tenant = %(tenant)s::text AND queue = %(name)s::text
    FOR UPDATE
),
empty AS MATERIALIZED (
    SELECT coalesce(sum(counters.open), 0) = 0 AS yes FROM counters
),
gone AS (
    DELETE FROM queues
    WHERE tenant = %(tenant)s::text AND name = %(name)s::text AND (SELECT empty.yes FROM empty)
    RETURNING configured
),
uncounted AS (
    DELETE FROM queue_counters
    WHERE tenant = %(tenant)s::text AND queue = %(name)s::text AND (SELECT empty.yes FROM empty)
),
forgotten AS (
    DELETE FROM deleted_queues WHERE delete_ms < %(forget)s::bigint
),
told AS (
    INSERT INTO deleted_queues AS d (tenant, name, version, configured, delete_ms)
    SELECT %(tenant)s::text, %(name)s::text, nextval('queue_versions'), gone.configured, %(now)s::bigint
    FROM gone
    ON CONFLICT (tenant, name) DO UPDATE SET
        version = excluded.version, configured = d.configured OR excluded.configured, delete_ms = excluded.delete_ms
)
SELECT empty.yes FROM empty
