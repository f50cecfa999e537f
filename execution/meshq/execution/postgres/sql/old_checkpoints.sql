-- A page of tasks whose checkpoints have not changed since a time, by id.
SELECT c.task_id FROM checkpoints AS c WHERE c.task_id > %s AND c.time_ms < %s ORDER BY c.task_id LIMIT %s
