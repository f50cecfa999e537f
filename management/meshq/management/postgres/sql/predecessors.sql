-- Reads for tasks that wait for others the one right before each in its chain.
SELECT uuid_send(o.id), uuid_send(p.id)
FROM open_tasks AS o
CROSS JOIN LATERAL (
    SELECT b.id
    FROM open_tasks AS b
    WHERE
        b.tenant = o.tenant AND b.queue = o.queue AND b.ordering_key = o.ordering_key
        AND b.order_seq < o.order_seq
    ORDER BY b.order_seq DESC
    LIMIT 1
) AS p
WHERE o.id = ANY (%(ids)s::uuid[]) AND o.state = 1 AND o.ordering_key IS NOT NULL
