-- Writes the wish to end tasks of which no worker has any, where they still are as they were read: one that has
-- moved on meanwhile is left alone.
UPDATE open_tasks AS o SET
    state = 6, cancel_reason = %(reason)s::text, cancel_ms = %(now)s::bigint, touched_ms = %(now)s::bigint,
    ending = NULL
FROM unnest(%(ids)s::uuid[], %(attempts)s::integer[], %(states)s::smallint[], %(ready)s::bigint[])
    AS i (id, attempt, state, ready_ms)
WHERE
    o.id = ANY (ARRAY[i.id]) AND o.attempt = i.attempt AND o.state = i.state AND o.ready_ms = i.ready_ms
RETURNING <open row>
