-- Counts what was inserted, names new queues, and returns the claims that were won.
, counted AS (
    INSERT INTO queue_counters AS c (tenant, queue, slot, created, arrival_rate, updated_ms)
    SELECT i.tenant, i.queue, %(slot)s::integer, count(*), count(*) / 60.0, %(now)s::bigint
    FROM inserted AS i
    GROUP BY i.tenant, i.queue
    ON CONFLICT (tenant, queue, slot) DO UPDATE SET
        created = c.created + excluded.created,
        arrival_rate = decayed(c.arrival_rate, excluded.updated_ms - c.updated_ms) + excluded.arrival_rate,
        completion_rate = decayed(c.completion_rate, excluded.updated_ms - c.updated_ms),
        updated_ms = greatest(c.updated_ms, excluded.updated_ms)
),
named AS (
    INSERT INTO queues (tenant, name, create_ms)
    SELECT q.tenant, q.name, %(now)s::bigint
    FROM unnest(%(new_tenants)s::text[], %(new_queues)s::text[]) AS q (tenant, name)
    ON CONFLICT (tenant, name) DO NOTHING
)
SELECT won.claim FROM won
