-- All ended attempts of one task, oldest first, without results.
SELECT
    a.task_id, a.attempt, a.tenant, a.outcome, a.lease_epoch, a.lease_number, a.worker_id, a.start_ms, a.end_ms,
    ''::bytea, a.error, a.retry_ms, a.non_retryable
FROM (SELECT %s::uuid AS task_id) AS wanted
JOIN attempts AS a ON a.task_id = wanted.task_id AND a.retention_days = retention_days(wanted.task_id)
ORDER BY a.attempt
