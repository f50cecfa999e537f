-- The ends of given attempts, in the order of the request: the first ones up to so many bytes of results and errors,
-- and one more at most.
SELECT
    ordinal, task_id, attempt, tenant, outcome, lease_epoch, lease_number, worker_id, start_ms, end_ms, success,
    error, retry_ms, non_retryable
FROM (
    SELECT
        wanted.ordinal, a.*,
        sum(sizes.own) OVER (ORDER BY wanted.ordinal) - sizes.own AS before
    FROM unnest(%s::uuid[], %s::integer[]) WITH ORDINALITY AS wanted (task_id, attempt, ordinal)
    JOIN attempts AS a ON a.task_id = wanted.task_id AND a.attempt = wanted.attempt
        AND a.retention_days = retention_days(wanted.task_id)
    CROSS JOIN LATERAL (
        SELECT coalesce(octet_length(a.success), 0) + coalesce(octet_length(a.error), 0) AS own
    ) AS sizes
) AS found
WHERE before < %s
ORDER BY ordinal
