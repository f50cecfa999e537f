-- Removes those of the next unique keys that nobody holds any more, and returns the last one of them all. A key
-- that gets another holder meanwhile is not removed.
WITH page AS (
    SELECT tenant, queue, key, task_id, scope, until_ms
    FROM unique_keys
    WHERE (tenant, queue, key) > (%(tenant)s::text, %(queue)s::text, %(key)s::text)
    ORDER BY tenant, queue, key
    LIMIT %(limit)s::bigint
),
gone AS (
    DELETE FROM unique_keys AS u USING page AS p
    WHERE
        u.tenant = ANY (ARRAY[p.tenant]) AND u.queue = p.queue AND u.key = p.key AND u.task_id = p.task_id
        AND CASE p.scope
            WHEN 3 THEN p.until_ms < %(before)s::bigint
            ELSE NOT EXISTS (SELECT FROM open_tasks AS o WHERE o.id = p.task_id OFFSET 0)
        END
)
SELECT tenant, queue, key FROM page ORDER BY tenant DESC, queue DESC, key DESC LIMIT 1
