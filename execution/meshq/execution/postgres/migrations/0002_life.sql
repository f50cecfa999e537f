-- The whole life of a task: what workers ask for after an attempt, checkpoints, tasks that are completed later,
-- settings of queues. Times are milliseconds.

ALTER TABLE attempts
    -- The delay before the next attempt that the worker asked for.
    ADD COLUMN retry_ms bigint,
    -- Whether the worker said that another attempt is useless.
    ADD COLUMN non_retryable boolean NOT NULL DEFAULT false;

-- The latest checkpoint of a task: an encoded google.protobuf.Value, for the next attempt.
CREATE TABLE checkpoints (
    task_id uuid PRIMARY KEY,
    attempt integer NOT NULL,
    time_ms bigint NOT NULL,
    checkpoint bytea NOT NULL
);

-- Leases of tasks that somebody else will complete, so that they survive their shard.
CREATE TABLE deferrals (
    task_id uuid NOT NULL,
    attempt integer NOT NULL,
    lease_epoch bigint NOT NULL,
    lease_number bigint NOT NULL,
    lease_ms bigint NOT NULL,
    timeout_ms bigint NOT NULL,
    shard text NOT NULL,
    worker_id text NOT NULL,
    -- tenant/queue/type/fairness key.
    lane text NOT NULL,
    -- The traits of the task as shards keep them.
    extras bytea NOT NULL,
    PRIMARY KEY (task_id, attempt)
);
CREATE INDEX deferrals_of_shard ON deferrals (shard, task_id, attempt);

-- What execution has to know of queues: an encoded meshq.internal.v1.QueueConfig each. The higher version counts.
CREATE TABLE queue_configs (
    tenant text NOT NULL,
    queue text NOT NULL,
    version bigint NOT NULL,
    config bytea NOT NULL,
    PRIMARY KEY (tenant, queue)
);
