-- Reads tasks by id from both tables in one snapshot, so that a task that is moved meanwhile is found
-- once. No task ends before it is made, which leaves out older partitions.
SELECT
    uuid_send(id), tenant, queue, type, state, attempt, max_attempts, ready_ms, start_ms, NULL::bigint, worker_id,
    error_type, error_message, cancel_reason, cancel_ms, CASE WHEN %(full)s::boolean THEN spec END
FROM open_tasks
WHERE id = ANY (%(ids)s::uuid[])
UNION ALL
SELECT
    uuid_send(id), tenant, queue, type, state, attempt, max_attempts, ready_ms, start_ms, end_ms, worker_id,
    error_type, error_message, cancel_reason, cancel_ms, CASE WHEN %(full)s::boolean THEN spec END
FROM finished_tasks
WHERE id = ANY (%(ids)s::uuid[]) AND end_ms >= %(oldest)s::bigint
