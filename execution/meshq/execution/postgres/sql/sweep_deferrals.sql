-- Forgets what has ended among a page of deferrals. Returns the last one of the page, if there is any.
WITH
    page AS (
        SELECT d.task_id, d.attempt FROM deferrals AS d
        WHERE (d.task_id, d.attempt) > (%s, %s)
        ORDER BY d.task_id, d.attempt
        LIMIT %s
    ),
    gone AS (
        DELETE FROM deferrals AS d USING page AS p, attempts AS a
        WHERE d.task_id = ANY (ARRAY[p.task_id]) AND d.attempt = p.attempt AND a.task_id = p.task_id AND a.attempt = p.attempt
            AND a.retention_days = retention_days(p.task_id)
    )
SELECT p.task_id, p.attempt FROM page AS p ORDER BY p.task_id DESC, p.attempt DESC LIMIT 1
