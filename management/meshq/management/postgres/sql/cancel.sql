-- Writes the wish to end tasks. The first reason stands. Returns the state before as well.
WITH before AS (
    SELECT o.id, o.state, i.reason, i.ending
    FROM unnest(%(ids)s::uuid[], %(reasons)s::text[], %(endings)s::smallint[]) AS i (id, reason, ending)
    JOIN open_tasks AS o ON o.id = i.id
    WHERE o.state <> 6
    ORDER BY o.id
    FOR UPDATE OF o
)
UPDATE open_tasks AS o SET
    state = 6, cancel_reason = before.reason, cancel_ms = %(now)s::bigint, touched_ms = %(now)s::bigint,
    ending = nullif(before.ending, 9)
FROM before
WHERE o.id = before.id
RETURNING
    before.state, <open row>
