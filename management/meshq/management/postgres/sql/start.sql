-- Notes that attempts run. A hint: whatever has moved on, or is to be cancelled, stays as it is.
UPDATE open_tasks AS o SET
    state = 4, start_ms = i.start_ms, worker_id = i.worker_id, touched_ms = %(now)s::bigint
FROM unnest(%(ids)s::uuid[], %(attempts)s::integer[], %(starts)s::bigint[], %(workers)s::text[])
    AS i (id, attempt, start_ms, worker_id)
WHERE o.id = i.id AND o.attempt = i.attempt AND o.state = ANY (%(startable)s::smallint[])
RETURNING
    <open row>
