-- Times are milliseconds since the epoch; outcomes are the numbers of meshq.v1.AttemptOutcome.

-- The ends of attempts. The first row of an attempt is its end; no row is ever changed. Partitions are bounded
-- by the days of task ids (UUIDv7) and are dropped whole.
CREATE TABLE attempts (
    task_id uuid NOT NULL,
    attempt integer NOT NULL,
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
    PRIMARY KEY (task_id, attempt)
) PARTITION BY RANGE (task_id);

CREATE TABLE attempts_default PARTITION OF attempts DEFAULT;

-- The versions of the ring; the highest one counts.
CREATE TABLE ring_versions (
    version bigint PRIMARY KEY,
    create_time timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE ring_shards (
    version bigint NOT NULL REFERENCES ring_versions,
    name text NOT NULL,
    address text NOT NULL,
    weight integer NOT NULL CHECK (weight > 0),
    draining boolean NOT NULL DEFAULT false,
    PRIMARY KEY (version, name)
);

-- Epochs of shards. No two shards and no two contents of one shard ever share a number, so that (epoch, number)
-- names a lease.
CREATE SEQUENCE shard_epochs;
