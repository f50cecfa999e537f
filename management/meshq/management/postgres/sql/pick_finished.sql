-- Reads the ids of ended tasks that a filter selects, the oldest first.
SELECT uuid_send(id) FROM finished_tasks WHERE <filter> ORDER BY id LIMIT %(limit)s::bigint
