-- Reads the ids of open tasks that a filter selects, the oldest first.
SELECT uuid_send(id) FROM open_tasks WHERE <filter> ORDER BY id LIMIT %(limit)s::bigint
