-- A page of what is to be completed later on a shard, by task and attempt.
SELECT
    d.task_id, d.attempt, d.lease_epoch, d.lease_number, d.lease_ms, d.timeout_ms, d.worker_id, d.lane, d.extras
FROM deferrals AS d
WHERE d.shard = %s AND (d.task_id, d.attempt) > (%s, %s)
ORDER BY d.task_id, d.attempt
LIMIT %s
