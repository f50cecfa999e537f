-- Reads tasks by id from both tables in one snapshot, so that a task that is moved meanwhile is found
-- once. No task leaves before it is made, which leaves out older partitions.
SELECT
    <open row>,
    CASE WHEN %(full)s::boolean THEN o.spec END
FROM open_tasks AS o
WHERE o.id = ANY (%(ids)s::uuid[])
UNION ALL
SELECT
    <finished row>,
    CASE WHEN %(full)s::boolean THEN f.spec END
FROM finished_tasks AS f
WHERE f.id = ANY (%(ids)s::uuid[]) AND f.leave_ms >= %(oldest)s::bigint
