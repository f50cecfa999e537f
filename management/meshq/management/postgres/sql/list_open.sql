-- Reads open tasks that a filter selects, the newest first.
SELECT
    <open row>
FROM open_tasks AS o
WHERE <filter>
ORDER BY id DESC
LIMIT %(limit)s::bigint
