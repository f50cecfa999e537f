-- Which of the given attempts have ended: their ordinals from 1.
SELECT wanted.ordinal
FROM unnest(%s::uuid[], %s::integer[]) WITH ORDINALITY AS wanted (task_id, attempt, ordinal)
JOIN attempts AS a ON a.task_id = wanted.task_id AND a.attempt = wanted.attempt
    AND a.retention_days = retention_days(wanted.task_id)
