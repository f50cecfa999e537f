-- As create.sql, for groups with tasks that are more than plain. Empty texts and zeros stand for NULL, and
-- labels are the texts of arrays, since arrays of arrays would have to be of one length.
, inserted AS (
    INSERT INTO open_tasks (
        id, tenant, queue, type, state, max_attempts, ready_ms, touched_ms, spec, retention_days, announce_start,
        priority, fairness_key, start_by_ms, close_by_ms, ordering_key, order_seq, unique_key, labels,
        redriven_from, traits
    )
    SELECT
        r.id, r.tenant, r.queue, r.type, r.state, r.max_attempts, r.ready_ms, %(now)s::bigint, r.spec,
        r.retention_days, r.announce_start = 1, r.priority, r.fairness_key, nullif(r.start_by_ms, 0),
        nullif(r.close_by_ms, 0), nullif(r.ordering_key, ''), nullif(r.order_seq, 0), nullif(r.unique_key, ''),
        nullif(r.labels, '')::text[], nullif(r.redriven_from, '00000000-0000-0000-0000-000000000000'),
        nullif(r.traits, '')
    FROM unnest(
        %(ids)s::uuid[], %(tenants)s::text[], %(queues)s::text[], %(types)s::text[], %(states)s::smallint[],
        %(max_attempts)s::smallint[], %(ready)s::bigint[], %(specs)s::bytea[], %(retention_days)s::smallint[],
        %(row_claims)s::text[], %(announced)s::smallint[], %(priorities)s::smallint[], %(fairness_keys)s::text[],
        %(start_by)s::bigint[], %(close_by)s::bigint[], %(ordering_keys)s::text[], %(order_seqs)s::bigint[],
        %(unique_keys)s::text[], %(labels)s::text[], %(redriven_from)s::uuid[], %(traits)s::bytea[]
    ) AS r (
        id, tenant, queue, type, state, max_attempts, ready_ms, spec, retention_days, claim, announce_start,
        priority, fairness_key, start_by_ms, close_by_ms, ordering_key, order_seq, unique_key, labels,
        redriven_from, traits
    )
    WHERE r.claim = '' OR r.claim IN (SELECT won.claim FROM won)
    ON CONFLICT (id) DO NOTHING
    RETURNING tenant, queue
)
