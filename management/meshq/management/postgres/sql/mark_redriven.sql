-- Writes into ended tasks which new ones make good for them; of two that are written one wins. Returns the new
-- ones that won, also those that won in an earlier try.
WITH chosen AS (
    SELECT f.id, f.leave_ms, i.redriven_to
    FROM unnest(%(olds)s::uuid[], %(news)s::uuid[]) AS i (id, redriven_to)
    JOIN finished_tasks AS f ON f.id = ANY (ARRAY[i.id])
    WHERE
        f.leave_ms >= %(first)s::bigint AND f.leave_ms < %(behind)s::bigint AND f.state IN (8, 9, 10)
    ORDER BY f.id
)
UPDATE finished_tasks AS f SET redriven_to = c.redriven_to
FROM chosen AS c
WHERE
    f.id = ANY (ARRAY[c.id]) AND f.leave_ms = c.leave_ms
    AND (f.redriven_to IS NULL OR f.redriven_to = c.redriven_to)
RETURNING uuid_send(f.redriven_to)
