-- Begins next attempts: changes the rows whose id and attempt match and that are to run on.
UPDATE open_tasks AS o SET
    attempt = i.next_attempt, state = i.state, ready_ms = i.ready_ms, touched_ms = %(now)s::bigint,
    start_ms = NULL, worker_id = NULL, error_type = nullif(i.error_type, ''),
    error_message = nullif(i.error_message, '')
FROM unnest(
    %(ids)s::uuid[], %(attempts)s::integer[], %(next_attempts)s::integer[], %(states)s::smallint[],
    %(ready)s::bigint[], %(error_types)s::text[], %(error_messages)s::text[]
) AS i (id, attempt, next_attempt, state, ready_ms, error_type, error_message)
WHERE o.id = i.id AND o.attempt = i.attempt AND o.state <> 6
RETURNING
    <open row>
