-- One row for each of the ended tasks that a filter selects.
SELECT 1 FROM finished_tasks WHERE <filter>
