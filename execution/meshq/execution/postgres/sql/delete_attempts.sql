-- Everything that is recorded of tasks.
WITH
    doomed AS (SELECT unnest(%s::uuid[]) AS task_id),
    checkpoints_gone AS (DELETE FROM checkpoints AS c USING doomed AS g WHERE c.task_id = ANY (ARRAY[g.task_id])),
    deferrals_gone AS (DELETE FROM deferrals AS d USING doomed AS g WHERE d.task_id = ANY (ARRAY[g.task_id]))
DELETE FROM attempts AS a USING doomed AS g
WHERE a.task_id = g.task_id AND a.retention_days = retention_days(g.task_id)
