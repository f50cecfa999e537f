-- The ledger. Times are milliseconds since the epoch; states are the numbers of meshq.v1.TaskState.

-- What has not ended. A row lives for as long as its task is open and is then moved, so that the
-- table stays as small as the backlog. Specifications are kept as they came: PostgreSQL would spend
-- more time on compressing them than their short life is worth.
CREATE TABLE open_tasks (
    id uuid PRIMARY KEY,
    ready_ms bigint NOT NULL,
    touched_ms bigint NOT NULL,
    start_ms bigint,
    cancel_ms bigint,
    attempt integer NOT NULL DEFAULT 1,
    max_attempts smallint NOT NULL,
    state smallint NOT NULL,
    priority smallint NOT NULL DEFAULT 0,
    tenant text NOT NULL,
    queue text NOT NULL,
    type text NOT NULL,
    fairness_key text NOT NULL DEFAULT '',
    routing_key text NOT NULL DEFAULT '',
    worker_id text,
    error_type text,
    error_message text,
    cancel_reason text,
    spec bytea NOT NULL
) WITH (
    -- Rows come and go by the thousand each second: clean up after a fixed number of dead rows, not
    -- after a share of a table whose size says nothing, and without pausing.
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 50000,
    autovacuum_vacuum_insert_scale_factor = 0,
    autovacuum_vacuum_insert_threshold = 200000,
    autovacuum_analyze_scale_factor = 0,
    autovacuum_analyze_threshold = 200000,
    autovacuum_vacuum_cost_delay = 0,
    fillfactor = 90
);

ALTER TABLE open_tasks ALTER COLUMN spec SET STORAGE EXTERNAL;

-- What waits for a time: the promoter looks for what is due soon.
CREATE INDEX open_tasks_due ON open_tasks (ready_ms, id) WHERE state IN (2, 5);
-- What is to be cancelled.
CREATE INDEX open_tasks_cancelling ON open_tasks (id) WHERE state = 6;

-- What has ended, by day of its end; partitions are dropped whole.
CREATE TABLE finished_tasks (
    id uuid NOT NULL,
    end_ms bigint NOT NULL,
    ready_ms bigint NOT NULL,
    start_ms bigint,
    cancel_ms bigint,
    attempt integer NOT NULL,
    max_attempts smallint NOT NULL,
    state smallint NOT NULL,
    tenant text NOT NULL,
    queue text NOT NULL,
    type text NOT NULL,
    worker_id text,
    error_type text,
    error_message text,
    cancel_reason text,
    spec bytea NOT NULL,
    PRIMARY KEY (id, end_ms)
) PARTITION BY RANGE (end_ms);

-- Before the first partition, as partitions take it over.
ALTER TABLE finished_tasks ALTER COLUMN spec SET STORAGE EXTERNAL;

CREATE TABLE finished_tasks_default PARTITION OF finished_tasks DEFAULT;

-- The dead letters of a queue.
CREATE INDEX finished_tasks_failed ON finished_tasks (tenant, queue, id) WHERE state = 8;

-- Request ids that were used, each with the ids of the tasks that the request made, 16 bytes each
-- in the order of the request; zeros where a task was refused.
CREATE TABLE claims (
    claim text PRIMARY KEY,
    create_ms bigint NOT NULL,
    fingerprint bigint NOT NULL,
    task_ids bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000);

ALTER TABLE claims ALTER COLUMN task_ids SET STORAGE EXTERNAL;

CREATE INDEX claims_age ON claims (create_ms);

CREATE TABLE queues (
    tenant text NOT NULL,
    name text NOT NULL,
    create_ms bigint NOT NULL,
    PRIMARY KEY (tenant, name)
);

-- Figures of the queues, written in the transactions that they count. Each writing connection has a
-- slot of its own, so that no two transactions wait for one row.
CREATE TABLE queue_counters (
    tenant text NOT NULL,
    queue text NOT NULL,
    slot integer NOT NULL,
    created bigint NOT NULL DEFAULT 0,
    succeeded bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    cancelled bigint NOT NULL DEFAULT 0,
    expired bigint NOT NULL DEFAULT 0,
    arrival_rate double precision NOT NULL DEFAULT 0,
    completion_rate double precision NOT NULL DEFAULT 0,
    updated_ms bigint NOT NULL,
    PRIMARY KEY (tenant, queue, slot)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Deleted tasks whose attempts execution has not forgotten yet.
CREATE TABLE deletions (
    id uuid PRIMARY KEY,
    create_ms bigint NOT NULL
);

-- Instances that do not sweep leave word here for the one that does.
CREATE TABLE sweep_requests (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    requested_ms bigint NOT NULL DEFAULT 0
);

INSERT INTO sweep_requests DEFAULT VALUES;

-- The rate of a queue after some milliseconds without events: it falls to 1/e in a minute. Tiny
-- values become zero, since PostgreSQL raises an error when a float underflows.
CREATE FUNCTION decayed(rate double precision, elapsed_ms bigint) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN greatest(rate * exp(-least(greatest(elapsed_ms, 0), 1200000) / 60000.0) - 1e-9, 0.0);
