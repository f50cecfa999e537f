-- Notes that attempts run. Whatever has moved on, or is to be cancelled, stays as it is. Unique keys that are
-- held until the start are let go.
WITH started AS (
    UPDATE open_tasks AS o SET
        state = 4, start_ms = i.start_ms, worker_id = i.worker_id, touched_ms = %(now)s::bigint
    FROM unnest(%(ids)s::uuid[], %(attempts)s::integer[], %(starts)s::bigint[], %(workers)s::text[])
        AS i (id, attempt, start_ms, worker_id)
    WHERE o.id = ANY (ARRAY[i.id]) AND o.attempt = i.attempt AND o.state = ANY (%(startable)s::smallint[])
    RETURNING o.*
),
freed AS (
    DELETE FROM unique_keys AS u USING started AS s
    WHERE
        u.tenant = ANY (ARRAY[s.tenant]) AND u.queue = s.queue AND u.key = s.unique_key AND u.task_id = s.id
        AND u.scope = 1
)
SELECT
    <open row>
FROM started AS o
