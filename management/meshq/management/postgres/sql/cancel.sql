-- Writes the wish to end tasks. The first reason stands. Why a task is to end as EXPIRED is kept as its error.
-- Returns the state before as well.
WITH before AS (
    SELECT i.id, o.state, i.reason, i.ending, i.error_type
    FROM unnest(
        %(ids)s::uuid[], %(reasons)s::text[], %(endings)s::smallint[], %(error_types)s::text[],
        %(expected)s::smallint[]
    ) AS i (id, reason, ending, error_type, expected)
    JOIN open_tasks AS o ON o.id = ANY (ARRAY[i.id])
    WHERE o.state <> 6 AND (i.expected = 0 OR i.expected = o.state)
    ORDER BY i.id
    FOR UPDATE OF o
)
UPDATE open_tasks AS o SET
    state = 6, cancel_reason = before.reason, cancel_ms = %(now)s::bigint, touched_ms = %(now)s::bigint,
    ending = nullif(before.ending, 9),
    error_type = CASE WHEN before.ending = 10 THEN before.error_type ELSE o.error_type END,
    error_message = CASE WHEN before.ending = 10 THEN before.reason ELSE o.error_message END
FROM before
WHERE o.id = ANY (ARRAY[before.id])
RETURNING
    before.state, <open row>
