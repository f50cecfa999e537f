-- Stands behind finish.sql where only the ends and the chains are wanted: one row for each end, with the ids
-- one after the other, as reading many rows takes time. Of a task that was created plain, and that nothing but its
-- first attempt has changed, the number of attempts it could have had is told as well: then the report says the rest.
SELECT
    state,
    CASE WHEN state IN (7, 8) AND attempt = 1 AND spared = 0 AND cancel_ms IS NULL AND traits IS NULL THEN max_attempts
    ELSE 0 END,
    string_agg(uuid_send(id), ''),
    array_agg(ARRAY[tenant, queue, ordering_key]) FILTER (WHERE ordering_key IS NOT NULL)
FROM moved
GROUP BY 1, 2
