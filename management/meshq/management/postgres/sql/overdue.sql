-- Reads tasks whose time to end has passed, and then those that wait for others and whose time to start has.
(
    SELECT uuid_send(id), close_by_ms, false
    FROM open_tasks
    WHERE close_by_ms IS NOT NULL AND state <> 6 AND close_by_ms <= %(now)s::bigint
    ORDER BY close_by_ms, id
    LIMIT %(limit)s::bigint
)
UNION ALL
(
    SELECT uuid_send(id), start_by_ms, true
    FROM open_tasks
    WHERE start_by_ms IS NOT NULL AND state = 1 AND start_by_ms <= %(now)s::bigint
    ORDER BY start_by_ms, id
    LIMIT %(limit)s::bigint
)
LIMIT %(limit)s::bigint
