-- Reads the ids of ended tasks that a filter selects and that nothing makes good for, the oldest first.
SELECT uuid_send(id) FROM finished_tasks WHERE redriven_to IS NULL AND <filter> ORDER BY id LIMIT %(limit)s::bigint
