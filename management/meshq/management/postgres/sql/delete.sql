-- Deletes a task that has ended, and notes that execution is to forget it.
WITH gone AS (
    DELETE FROM finished_tasks
    WHERE id = %(id)s::uuid AND leave_ms >= %(first)s::bigint AND leave_ms < %(behind)s::bigint
    RETURNING id
),
noted AS (
    INSERT INTO deletions (id, create_ms) SELECT id, %(now)s::bigint FROM gone ON CONFLICT (id) DO NOTHING
)
SELECT count(*) FROM gone
