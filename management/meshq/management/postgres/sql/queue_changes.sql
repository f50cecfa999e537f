-- Reads queues that were set or deleted behind a version, in the order of the changes.
SELECT tenant, name, version, update_ms, configured, false, settings
FROM queues
WHERE version > %(after)s::bigint AND version > 0
UNION ALL
SELECT tenant, name, version, delete_ms, configured, true, NULL
FROM deleted_queues
WHERE version > %(after)s::bigint
ORDER BY 3
LIMIT %(limit)s::bigint
