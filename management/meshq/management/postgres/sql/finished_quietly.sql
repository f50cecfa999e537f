-- Stands behind finish.sql where only the ends and the chains are wanted: one row for each end, with the ids
-- one after the other, as reading many rows takes time.
SELECT
    state, string_agg(uuid_send(id), ''),
    array_agg(ARRAY[tenant, queue, ordering_key]) FILTER (WHERE ordering_key IS NOT NULL)
FROM moved
GROUP BY state
