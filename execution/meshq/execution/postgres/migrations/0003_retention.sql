-- Attempts leave with their tasks, and the queue of a task says when that is: partitions by days of retention,
-- then by id. For how many days a task is kept is in its id, see meshq.contract.ids.

-- The days of retention that an id says.
CREATE FUNCTION retention_days(id uuid) RETURNS smallint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN ('{1,3,7,14,30,90,180,365}'::smallint[])[(get_byte(uuid_send(id), 15) & 7) + 1];

-- The day since the epoch on which an id was made.
CREATE FUNCTION id_day(id uuid) RETURNS bigint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN ('x' || encode(substr(uuid_send(id), 1, 6), 'hex'))::bit(48)::bigint / 86400000;

ALTER TABLE attempts RENAME TO attempts_before;
ALTER TABLE attempts_before RENAME CONSTRAINT attempts_pkey TO attempts_before_pkey;
DO $$
DECLARE part text;
BEGIN
    FOR part IN
        SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'attempts_before'::regclass
    LOOP
        EXECUTE format('ALTER TABLE %I RENAME TO %I', part, 'before_' || part);
    END LOOP;
END $$;

CREATE TABLE attempts (
    task_id uuid NOT NULL,
    attempt integer NOT NULL,
    retention_days smallint NOT NULL,
    outcome smallint NOT NULL,
    lease_epoch bigint NOT NULL,
    lease_number bigint NOT NULL,
    start_ms bigint NOT NULL,
    end_ms bigint NOT NULL,
    tenant text NOT NULL,
    worker_id text NOT NULL,
    -- An encoded meshq.v1.Success, or an encoded meshq.v1.TaskError; empty bytes where there is none.
    success bytea NOT NULL,
    error bytea NOT NULL,
    -- The delay before the next attempt that the worker asked for.
    retry_ms bigint,
    -- Whether the worker said that another attempt is useless.
    non_retryable boolean NOT NULL DEFAULT false,
    -- The retention follows from the id, so that an attempt is unique by the first two alone.
    PRIMARY KEY (task_id, attempt, retention_days)
) PARTITION BY LIST (retention_days);

-- Whether anything of a partition is still young. Rows come about in the order of their ends, so that this
-- costs next to nothing.
CREATE INDEX attempts_end ON attempts USING brin (end_ms) WITH (pages_per_range = 32);

-- Several days to a partition where attempts are kept for long, so that there are never many of them; as in
-- meshq.execution.spans.
DO $$
DECLARE days integer; span bigint; day bigint;
BEGIN
    FOREACH days IN ARRAY ARRAY[1, 3, 7, 14, 30, 90, 180, 365] LOOP
        EXECUTE format(
            'CREATE TABLE %I PARTITION OF attempts FOR VALUES IN (%s) PARTITION BY RANGE (task_id)',
            'attempts_' || days, days
        );
        EXECUTE format(
            'CREATE TABLE %I PARTITION OF %I DEFAULT', 'attempts_' || days || '_default', 'attempts_' || days
        );
        span := greatest(1, days / 30);
        FOR day IN
            SELECT DISTINCT id_day(task_id) / span * span FROM attempts_before WHERE retention_days(task_id) = days
        LOOP
            EXECUTE format(
                'CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                'attempts_' || days || '_' || to_char(to_timestamp(day * 86400) AT TIME ZONE 'UTC', 'YYYYMMDD'),
                'attempts_' || days,
                rpad(lpad(to_hex(day * 86400000), 12, '0'), 32, '0'),
                rpad(lpad(to_hex((day + span) * 86400000), 12, '0'), 32, '0')
            );
        END LOOP;
    END LOOP;
END $$;

INSERT INTO attempts (
    task_id, attempt, retention_days, outcome, lease_epoch, lease_number, start_ms, end_ms, tenant, worker_id,
    success, error, retry_ms, non_retryable
)
SELECT
    task_id, attempt, retention_days(task_id), outcome, lease_epoch, lease_number, start_ms, end_ms, tenant,
    worker_id, success, error, retry_ms, non_retryable
FROM attempts_before;

DROP TABLE attempts_before;
