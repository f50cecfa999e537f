-- Reads the next chains behind a key, each with whether its first task waits; one step of the index for each.
WITH RECURSIVE chain AS (
    (
        SELECT o.tenant, o.queue, o.ordering_key, o.state
        FROM open_tasks AS o
        WHERE
            o.ordering_key IS NOT NULL
            AND (o.tenant, o.queue, o.ordering_key) > (%(tenant)s::text, %(queue)s::text, %(key)s::text)
        ORDER BY o.tenant, o.queue, o.ordering_key, o.order_seq
        LIMIT 1
    )
    UNION ALL
    SELECT n.tenant, n.queue, n.ordering_key, n.state
    FROM chain AS c
    CROSS JOIN LATERAL (
        SELECT o.tenant, o.queue, o.ordering_key, o.state
        FROM open_tasks AS o
        WHERE
            o.ordering_key IS NOT NULL
            AND (o.tenant, o.queue, o.ordering_key) > (c.tenant, c.queue, c.ordering_key)
        ORDER BY o.tenant, o.queue, o.ordering_key, o.order_seq
        LIMIT 1
    ) AS n
)
SELECT tenant, queue, ordering_key, state = 1 FROM chain LIMIT %(limit)s::bigint
