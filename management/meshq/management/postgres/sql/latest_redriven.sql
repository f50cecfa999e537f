-- Reads until when the first starts of open tasks that make good for others are planned. Later attempts have times
-- of their own.
SELECT max(ready_ms) FROM open_tasks WHERE redriven_from IS NOT NULL AND attempt = 1 AND <filter>
