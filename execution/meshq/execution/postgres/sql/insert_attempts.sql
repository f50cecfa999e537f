-- The end of many attempts at once; those that have ended before are left as they are. Tells how many are new.
INSERT INTO attempts
    (task_id, attempt, retention_days, outcome, lease_epoch, lease_number, start_ms, end_ms, tenant, worker_id,
     success, error, retry_ms, non_retryable)
SELECT
    e.task_id, e.attempt, retention_days(e.task_id), e.outcome, e.lease_epoch, e.lease_number, e.start_ms, e.end_ms,
    e.tenant, e.worker_id, e.success, e.error, NULLIF(e.retry_ms, -1), e.non_retryable <> 0
FROM unnest(
    %s::uuid[], %s::integer[], %s::smallint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[],
    %s::text[], %s::text[], %s::bytea[], %s::bytea[], %s::bigint[], %s::smallint[]
) AS e (task_id, attempt, outcome, lease_epoch, lease_number, start_ms, end_ms, tenant, worker_id, success, error,
        retry_ms, non_retryable)
ON CONFLICT DO NOTHING
