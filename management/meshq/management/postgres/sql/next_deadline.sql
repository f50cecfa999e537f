-- Reads when the next task is overdue, see overdue.sql.
SELECT least(
    (SELECT min(close_by_ms) FROM open_tasks WHERE close_by_ms IS NOT NULL AND state <> 6),
    (SELECT min(start_by_ms) FROM open_tasks WHERE start_by_ms IS NOT NULL AND state = 1)
)
