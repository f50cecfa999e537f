-- Reads a page of tasks, the newest first, from both tables in one snapshot.
(
    SELECT
        uuid_send(id), tenant, queue, type, state, attempt, max_attempts, ready_ms, start_ms, NULL::bigint,
        worker_id, error_type, error_message, cancel_reason, cancel_ms
    FROM open_tasks
    WHERE
        id >= %(lowest)s::uuid AND id < %(highest)s::uuid AND tenant = %(tenant)s::text
        AND (%(states)s::smallint[] IS NULL OR state = ANY (%(states)s::smallint[]))
        AND (%(type)s::text = '' OR type = %(type)s)
        AND (%(queue)s::text = '' OR queue = %(queue)s)
    ORDER BY id DESC
    LIMIT %(limit)s::bigint
)
UNION ALL
(
    SELECT
        uuid_send(id), tenant, queue, type, state, attempt, max_attempts, ready_ms, start_ms, end_ms,
        worker_id, error_type, error_message, cancel_reason, cancel_ms
    FROM finished_tasks
    WHERE
        id >= %(lowest)s::uuid AND id < %(highest)s::uuid AND end_ms >= %(oldest)s::bigint
        AND tenant = %(tenant)s::text
        AND (%(states)s::smallint[] IS NULL OR state = ANY (%(states)s::smallint[]))
        AND (%(type)s::text = '' OR type = %(type)s)
        AND (%(queue)s::text = '' OR queue = %(queue)s)
    ORDER BY id DESC
    LIMIT %(limit)s::bigint
)
ORDER BY 1 DESC
LIMIT %(limit)s::bigint
