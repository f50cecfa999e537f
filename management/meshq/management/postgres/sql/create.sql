-- Accepts tasks: one statement, one transaction, one round trip.
--
-- Claims first, in the order of their names, so that two groups cannot wait for each other. A task
-- is inserted when it has no claim or its claim was won here. Returns the claims that were won.
--
-- The OR keeps the planner from turning the test into a join: it is a hashed subplan, which does not
-- depend on the join methods that this connection has turned off.
WITH won AS (
    INSERT INTO claims (claim, create_ms, fingerprint, task_ids)
    SELECT c.claim, %(now)s::bigint, c.fingerprint, c.task_ids
    FROM unnest(%(claims)s::text[], %(fingerprints)s::bigint[], %(claim_ids)s::bytea[])
        AS c (claim, fingerprint, task_ids)
    ON CONFLICT (claim) DO NOTHING
    RETURNING claim
),
inserted AS (
    INSERT INTO open_tasks (id, tenant, queue, type, state, max_attempts, ready_ms, touched_ms, spec, retention_days,
        announce_start)
    SELECT r.id, r.tenant, r.queue, r.type, r.state, r.max_attempts, r.ready_ms, %(now)s::bigint, r.spec,
        r.retention_days, r.max_attempts = 1
    FROM unnest(
        %(ids)s::uuid[], %(tenants)s::text[], %(queues)s::text[], %(types)s::text[], %(states)s::smallint[],
        %(max_attempts)s::smallint[], %(ready)s::bigint[], %(specs)s::bytea[], %(retention_days)s::smallint[],
        %(row_claims)s::text[]
    ) AS r (id, tenant, queue, type, state, max_attempts, ready_ms, spec, retention_days, claim)
    WHERE r.claim = '' OR r.claim IN (SELECT won.claim FROM won)
    ON CONFLICT (id) DO NOTHING
    RETURNING tenant, queue
),
counted AS (
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
