-- Accepts plain tasks; stands between claim.sql and created.sql: one statement, one transaction, one
-- round trip. A task is inserted when it has no claim or its claim was won there.
--
-- The OR keeps the planner from turning the test into a join: it is a hashed subplan, which does not
-- depend on the join methods that this connection has turned off.
, inserted AS (
    INSERT INTO open_tasks (
        id, tenant, queue, type, state, max_attempts, ready_ms, touched_ms, spec, retention_days, announce_start
    )
    SELECT
        r.id, r.tenant, r.queue, r.type, r.state, r.max_attempts, r.ready_ms, %(now)s::bigint, r.spec,
        r.retention_days, r.max_attempts = 1
    FROM unnest(
        %(ids)s::uuid[], %(tenants)s::text[], %(queues)s::text[], %(types)s::text[], %(states)s::smallint[],
        %(max_attempts)s::smallint[], %(ready)s::bigint[], %(specs)s::bytea[], %(retention_days)s::smallint[],
        %(row_claims)s::text[]
    ) AS r (id, tenant, queue, type, state, max_attempts, ready_ms, spec, retention_days, claim)
    WHERE r.claim = '' OR r.claim IN (SELECT won.claim FROM won)
    ON CONFLICT (id) DO NOTHING
    RETURNING tenant, queue
)
