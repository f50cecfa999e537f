-- Reads open tasks that a filter selects and that were changed since a time, with the time.
SELECT
    o.touched_ms,
    <open row>
FROM open_tasks AS o
WHERE touched_ms >= %(since)s::bigint AND <filter>
ORDER BY touched_ms
LIMIT %(limit)s::bigint
