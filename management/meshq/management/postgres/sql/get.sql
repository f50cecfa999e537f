-- Reads tasks by id from both tables in one snapshot, so that a task that is moved meanwhile is found
-- once. Where an ended task can be follows from its id, which leaves out most partitions, and what has left
-- is not there although its partition may still stand.
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
WHERE f.id = ANY (%(ids)s::uuid[]) AND f.leave_ms >= %(first)s::bigint AND f.leave_ms < %(behind)s::bigint
