-- Writes the wish to cancel. The first reason stands. Returns the state before as well.
WITH before AS (
    SELECT id, state FROM open_tasks WHERE id = %(id)s::uuid AND state <> 6 FOR UPDATE
)
UPDATE open_tasks AS o SET
    state = 6, cancel_reason = %(reason)s::text, cancel_ms = %(now)s::bigint, touched_ms = %(now)s::bigint
FROM before
WHERE o.id = before.id
RETURNING
    before.state, <open row>
