-- Reads what there is to do for those who keep the ledger, one step of an index for each; and the term of their office.
SELECT
    coalesce((SELECT term FROM offices WHERE name = %(office)s::text), 0),
    (SELECT requested_ms FROM sweep_requests),
    EXISTS (SELECT FROM open_tasks),
    EXISTS (SELECT FROM open_tasks WHERE state = 6),
    least(
        (SELECT min(close_by_ms) FROM open_tasks WHERE close_by_ms IS NOT NULL AND state <> 6),
        (SELECT min(start_by_ms) FROM open_tasks WHERE start_by_ms IS NOT NULL AND state = 1)
    ),
    (SELECT min(ready_ms) FROM open_tasks WHERE state IN (2, 5) AND ready_ms > %(due_after)s::bigint),
    EXISTS (SELECT FROM deletions),
    EXISTS (SELECT FROM finished_tasks_default)
