-- Stores the settings of a queue, and makes the queue where there is none. The caller holds the lock of
-- the settings, so that versions are committed in their order.
WITH gone AS (
    DELETE FROM deleted_queues
    WHERE tenant = %(tenant)s::text AND name = %(name)s::text
    RETURNING configured
)
INSERT INTO queues AS q (tenant, name, create_ms, version, update_ms, configured, settings)
VALUES (
    %(tenant)s::text, %(name)s::text, %(now)s::bigint, nextval('queue_versions'), %(now)s::bigint,
    %(configured)s::boolean OR coalesce((SELECT gone.configured FROM gone), false), %(settings)s::bytea
)
ON CONFLICT (tenant, name) DO UPDATE SET
    version = excluded.version,
    update_ms = excluded.update_ms,
    configured = q.configured OR excluded.configured,
    settings = excluded.settings
