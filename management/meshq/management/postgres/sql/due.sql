-- Reads what waits for a time between two bounds, the earliest first, up to so many bytes of specifications and one
-- more at most.
WITH near AS (
    SELECT id, attempt, ready_ms, octet_length(spec) AS size
    FROM open_tasks
    WHERE state IN (2, 5) AND (ready_ms, id) > (%(after_ms)s::bigint, %(after_id)s::uuid) AND ready_ms <= %(until)s::bigint
    ORDER BY ready_ms, id
    LIMIT %(limit)s::bigint
),
summed AS (
    SELECT id, attempt, ready_ms, sum(size) OVER (ORDER BY ready_ms, id) - size AS before FROM near
)
SELECT
    <sendable>
FROM summed AS s
JOIN open_tasks AS o ON o.id = ANY (ARRAY[s.id]) AND o.attempt = s.attempt
WHERE s.before < %(bytes)s::bigint
ORDER BY s.ready_ms, s.id
