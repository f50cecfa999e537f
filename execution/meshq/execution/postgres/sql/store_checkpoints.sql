-- The latest checkpoints of tasks; one of an earlier attempt does not replace one of a later.
INSERT INTO checkpoints (task_id, attempt, time_ms, checkpoint)
SELECT c.task_id, c.attempt, c.time_ms, c.checkpoint
FROM unnest(%s::uuid[], %s::integer[], %s::bigint[], %s::bytea[]) AS c (task_id, attempt, time_ms, checkpoint)
ON CONFLICT (task_id) DO UPDATE
SET attempt = excluded.attempt, time_ms = excluded.time_ms, checkpoint = excluded.checkpoint
WHERE checkpoints.attempt <= excluded.attempt
