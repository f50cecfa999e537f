-- All ended attempts of one task, oldest first, without results.
SELECT
    a.task_id, a.attempt, a.tenant, a.outcome, a.lease_epoch, a.lease_number, a.worker_id, a.start_ms, a.end_ms,
    ''::bytea, a.error, a.retry_ms, a.non_retryable
FROM attempts AS a
WHERE a.task_id = %s
ORDER BY a.attempt
