-- Counts what queues have that is on no shard: what waits for other tasks, and what is due so much later that
-- it waits in the ledger. Both from partial indexes alone.
SELECT
    q.name,
    (
        SELECT count(*) FROM open_tasks
        WHERE tenant = %(tenant)s::text AND queue = q.name AND state = 1
    ),
    (
        SELECT count(*) FROM open_tasks
        WHERE tenant = %(tenant)s::text AND queue = q.name AND state IN (2, 5) AND ready_ms > %(later)s::bigint
    )
FROM unnest(%(names)s::text[]) AS q (name)
