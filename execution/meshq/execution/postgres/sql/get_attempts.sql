-- The ends of given attempts, in the order of the request.
SELECT
    wanted.ordinal, a.task_id, a.attempt, a.tenant, a.outcome, a.lease_epoch, a.lease_number, a.worker_id,
    a.start_ms, a.end_ms, a.success, a.error, a.retry_ms, a.non_retryable
FROM unnest(%s::uuid[], %s::integer[]) WITH ORDINALITY AS wanted (task_id, attempt, ordinal)
JOIN attempts AS a ON a.task_id = wanted.task_id AND a.attempt = wanted.attempt
    AND a.retention_days = retention_days(wanted.task_id)
ORDER BY wanted.ordinal
