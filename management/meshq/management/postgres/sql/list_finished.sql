-- Reads ended tasks that a filter selects, the newest first.
SELECT
    <finished row>
FROM finished_tasks AS f
WHERE <filter>
ORDER BY id DESC
LIMIT %(limit)s::bigint
