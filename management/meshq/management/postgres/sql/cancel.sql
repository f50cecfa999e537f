-- Writes the wish to cancel. The first reason stands. Returns the state before as well.
WITH before AS (
    SELECT id, state FROM open_tasks WHERE id = %(id)s::uuid AND state <> 6 FOR UPDATE
)
UPDATE open_tasks AS o SET
    state = 6, cancel_reason = %(reason)s::text, cancel_ms = %(now)s::bigint, touched_ms = %(now)s::bigint
FROM before
WHERE o.id = before.id
RETURNING
    before.state, uuid_send(o.id), o.tenant, o.queue, o.type, o.state, o.attempt, o.max_attempts, o.ready_ms,
    o.start_ms, NULL::bigint, o.worker_id, o.error_type, o.error_message, o.cancel_reason, o.cancel_ms
