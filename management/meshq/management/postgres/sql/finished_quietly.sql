-- Stands behind finish.sql where only the states and the chains are wanted.
SELECT uuid_send(id), state, CASE WHEN ordering_key IS NOT NULL THEN ARRAY[tenant, queue, ordering_key] END
FROM moved
