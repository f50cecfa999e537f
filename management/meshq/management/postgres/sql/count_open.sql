-- One row for each of the open tasks that a filter selects.
SELECT 1 FROM open_tasks WHERE <filter>
