-- Deletes tasks that have ended, and notes that execution is to forget them.
WITH gone AS (
    DELETE FROM finished_tasks
    WHERE id = ANY (%(ids)s::uuid[]) AND leave_ms >= %(first)s::bigint AND leave_ms < %(behind)s::bigint
    RETURNING id
),
noted AS (
    INSERT INTO deletions (id, create_ms) SELECT id, %(now)s::bigint FROM gone ON CONFLICT (id) DO NOTHING
)
SELECT uuid_send(id) FROM gone
