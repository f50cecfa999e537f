-- Changes an open task that is locked. Its deadlines move with its start where it has any.
UPDATE open_tasks AS o SET
    attempt = o.attempt + %(passed)s::integer, spared = o.spared + %(passed)s::smallint,
    state = %(state)s::smallint, ready_ms = %(ready)s::bigint, touched_ms = %(now)s::bigint,
    priority = %(priority)s::smallint, labels = %(labels)s::text[], traits = %(traits)s::bytea,
    spec = %(spec)s::bytea,
    start_ms = CASE WHEN %(passed)s::integer = 0 THEN o.start_ms END,
    worker_id = CASE WHEN %(passed)s::integer = 0 THEN o.worker_id END,
    start_by_ms = CASE WHEN o.start_by_ms IS NOT NULL THEN coalesce(%(start_by)s::bigint, o.start_by_ms) END,
    close_by_ms = CASE WHEN o.close_by_ms IS NOT NULL THEN coalesce(%(close_by)s::bigint, o.close_by_ms) END
WHERE o.id = %(id)s::uuid
RETURNING
    <open row>, o.spec
