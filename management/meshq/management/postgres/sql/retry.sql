-- Begins next attempts: changes the rows whose id and attempt match and that are to run on. Whether the task
-- was started in time is settled with its first attempt.
UPDATE open_tasks AS o SET
    attempt = i.next_attempt, state = i.state, ready_ms = i.ready_ms, touched_ms = %(now)s::bigint,
    start_ms = NULL, worker_id = NULL, start_by_ms = NULL, error_type = nullif(i.error_type, ''),
    error_message = nullif(i.error_message, ''), spared = o.spared + i.spared,
    unanswered = CASE i.unanswered WHEN 0 THEN 0 ELSE o.unanswered + i.unanswered END
FROM unnest(
    %(ids)s::uuid[], %(attempts)s::integer[], %(next_attempts)s::integer[], %(states)s::smallint[],
    %(ready)s::bigint[], %(error_types)s::text[], %(error_messages)s::text[], %(spared)s::smallint[],
    %(unanswered)s::smallint[]
) AS i (id, attempt, next_attempt, state, ready_ms, error_type, error_message, spared, unanswered)
WHERE o.id = ANY (ARRAY[i.id]) AND o.attempt = i.attempt AND o.state <> 6
RETURNING
    <open row>
