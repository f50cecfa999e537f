-- Ends tasks: moves the rows whose id and attempt match. The DELETE is the arbiter: of two reports
-- of one attempt, and of a report and a cancellation, one finds the row. A task whose time was over ends as
-- EXPIRED where it would end as CANCELLED. What is returned of `moved` is written behind this.
WITH moved AS (
    DELETE FROM open_tasks AS o
    USING unnest(
        %(ids)s::uuid[], %(attempts)s::integer[], %(states)s::smallint[], %(starts)s::bigint[],
        %(ends)s::bigint[], %(workers)s::text[], %(error_types)s::text[], %(error_messages)s::text[]
    ) AS i (id, attempt, state, start_ms, end_ms, worker_id, error_type, error_message)
    WHERE o.id = ANY (ARRAY[i.id]) AND o.attempt = i.attempt
    RETURNING
        o.id, i.end_ms, o.ready_ms, coalesce(nullif(i.start_ms, 0), o.start_ms) AS start_ms, o.cancel_ms,
        o.attempt, o.max_attempts,
        CASE i.state WHEN 9 THEN coalesce(o.ending, 9) ELSE i.state END AS state, o.tenant, o.queue, o.type,
        coalesce(nullif(i.worker_id, ''), o.worker_id) AS worker_id,
        CASE WHEN o.ending = 10 AND i.state IN (9, 10) THEN o.error_type ELSE nullif(i.error_type, '') END AS error_type,
        CASE
            WHEN o.ending = 10 AND i.state IN (9, 10) THEN o.error_message ELSE nullif(i.error_message, '')
        END AS error_message,
        o.cancel_reason, i.end_ms + o.retention_days * 86400000::bigint AS leave_ms, o.spared, o.priority,
        o.fairness_key, o.ordering_key, o.unique_key, o.labels, o.redriven_from, NULL::uuid AS redriven_to,
        o.traits, o.spec
),
kept AS (
    INSERT INTO finished_tasks (
        id, end_ms, ready_ms, start_ms, cancel_ms, attempt, max_attempts, state, tenant, queue, type,
        worker_id, error_type, error_message, cancel_reason, leave_ms, spared, priority, fairness_key,
        ordering_key, unique_key, labels, redriven_from, traits, spec
    )
    SELECT
        id, end_ms, ready_ms, start_ms, cancel_ms, attempt, max_attempts, state, tenant, queue, type,
        worker_id, error_type, error_message, cancel_reason, leave_ms, spared, priority, fairness_key,
        ordering_key, unique_key, labels, redriven_from, traits, spec
    FROM moved
),
counted AS (
    INSERT INTO queue_counters AS c (
        tenant, queue, slot, succeeded, failed, cancelled, expired, completion_rate, updated_ms
    )
    SELECT
        m.tenant, m.queue, %(slot)s::integer,
        count(*) FILTER (WHERE m.state = 7), count(*) FILTER (WHERE m.state = 8),
        count(*) FILTER (WHERE m.state = 9), count(*) FILTER (WHERE m.state = 10),
        count(*) / 60.0, %(now)s::bigint
    FROM moved AS m
    GROUP BY m.tenant, m.queue
    ON CONFLICT (tenant, queue, slot) DO UPDATE SET
        succeeded = c.succeeded + excluded.succeeded,
        failed = c.failed + excluded.failed,
        cancelled = c.cancelled + excluded.cancelled,
        expired = c.expired + excluded.expired,
        arrival_rate = decayed(c.arrival_rate, excluded.updated_ms - c.updated_ms),
        completion_rate =
            decayed(c.completion_rate, excluded.updated_ms - c.updated_ms) + excluded.completion_rate,
        updated_ms = greatest(c.updated_ms, excluded.updated_ms)
)
