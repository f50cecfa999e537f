-- Reads tasks that a filter selects and that ended since a time, with the time.
SELECT
    f.end_ms,
    <finished row>
FROM finished_tasks AS f
WHERE end_ms >= %(since)s::bigint AND <filter>
ORDER BY end_ms
LIMIT %(limit)s::bigint
