-- The whole life of a task: keys, labels, deadlines, order, settings of queues, retention by queue.
--
-- `traits` is what a task says beyond a plain one: an encoded meshq.v1.Task with the fields of the
-- specification from 11 on, NULL for most. Only what statements look for is a column of its own.

ALTER TABLE open_tasks
    DROP COLUMN routing_key,
    -- Attempts that cost nothing: snoozed, or passed over by an update.
    ADD COLUMN spared smallint NOT NULL DEFAULT 0,
    -- Attempts in a row that ended without an answer.
    ADD COLUMN unanswered smallint NOT NULL DEFAULT 0,
    ADD COLUMN retention_days smallint NOT NULL DEFAULT 7,
    -- The terminal state that CANCELLING leads to; NULL for CANCELLED.
    ADD COLUMN ending smallint,
    -- Whether the ledger has to know of a start before the worker does.
    ADD COLUMN announce_start boolean NOT NULL DEFAULT false,
    ADD COLUMN start_by_ms bigint,
    ADD COLUMN close_by_ms bigint,
    -- The place in the chain of its ordering key.
    ADD COLUMN order_seq bigint,
    ADD COLUMN ordering_key text,
    ADD COLUMN unique_key text,
    -- Each as "key=value".
    ADD COLUMN labels text[],
    ADD COLUMN redriven_from uuid,
    ADD COLUMN traits bytea;

-- The chain of an ordering key within its queue.
CREATE INDEX open_tasks_order ON open_tasks (tenant, queue, ordering_key, order_seq) WHERE ordering_key IS NOT NULL;
-- What waits for other tasks.
CREATE INDEX open_tasks_waiting ON open_tasks (tenant, queue, id) WHERE state = 1;
-- What waits in the ledger for its time, by queue.
CREATE INDEX open_tasks_later ON open_tasks (tenant, queue, ready_ms) WHERE state IN (2, 5);
CREATE INDEX open_tasks_close_by ON open_tasks (close_by_ms, id) WHERE close_by_ms IS NOT NULL AND state <> 6;
CREATE INDEX open_tasks_start_by ON open_tasks (start_by_ms, id) WHERE start_by_ms IS NOT NULL AND state = 1;
-- What runs for long; others go from ready to their end.
CREATE INDEX open_tasks_running ON open_tasks (id) WHERE state = 4;
-- Where the few tasks of a queue or type are among many others, and what has changed lately. It tells the
-- places only roughly, and costs an insert next to nothing.
CREATE INDEX open_tasks_places ON open_tasks
    USING brin (queue text_bloom_ops, type text_bloom_ops, touched_ms int8_minmax_ops)
    WITH (pages_per_range = 32, autosummarize = on);
-- Until when redriven tasks are spread.
CREATE INDEX open_tasks_redriven ON open_tasks (ready_ms) WHERE redriven_from IS NOT NULL;
CREATE INDEX open_tasks_labels ON open_tasks USING gin (labels) WHERE labels IS NOT NULL;

-- What has ended leaves on the day that its queue's retention names: the partitions are days of leaving.
ALTER TABLE finished_tasks RENAME TO finished_tasks_before;
ALTER TABLE finished_tasks_before RENAME CONSTRAINT finished_tasks_pkey TO finished_tasks_before_pkey;
DO $$
DECLARE part text;
BEGIN
    FOR part IN
        SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'finished_tasks_before'::regclass
    LOOP
        EXECUTE format('ALTER TABLE %I RENAME TO %I', part, 'before_' || part);
    END LOOP;
END $$;
DROP INDEX finished_tasks_failed;

CREATE TABLE finished_tasks (
    id uuid NOT NULL,
    leave_ms bigint NOT NULL,
    end_ms bigint NOT NULL,
    ready_ms bigint NOT NULL,
    start_ms bigint,
    cancel_ms bigint,
    attempt integer NOT NULL,
    max_attempts smallint NOT NULL,
    spared smallint NOT NULL DEFAULT 0,
    state smallint NOT NULL,
    priority smallint NOT NULL DEFAULT 0,
    tenant text NOT NULL,
    queue text NOT NULL,
    type text NOT NULL,
    fairness_key text NOT NULL DEFAULT '',
    worker_id text,
    error_type text,
    error_message text,
    cancel_reason text,
    ordering_key text,
    unique_key text,
    labels text[],
    redriven_from uuid,
    redriven_to uuid,
    traits bytea,
    spec bytea NOT NULL,
    PRIMARY KEY (id, leave_ms)
) PARTITION BY RANGE (leave_ms);

-- Before the first partition, as partitions take it over.
ALTER TABLE finished_tasks ALTER COLUMN spec SET STORAGE EXTERNAL;

CREATE TABLE finished_tasks_default PARTITION OF finished_tasks DEFAULT;

DO $$
DECLARE day bigint;
BEGIN
    FOR day IN SELECT DISTINCT end_ms / 86400000 + 7 FROM finished_tasks_before LOOP
        EXECUTE format(
            'CREATE TABLE %I PARTITION OF finished_tasks FOR VALUES FROM (%s) TO (%s)',
            'finished_tasks_' || to_char(to_timestamp(day * 86400) AT TIME ZONE 'UTC', 'YYYYMMDD'),
            day * 86400000, (day + 1) * 86400000
        );
    END LOOP;
END $$;

INSERT INTO finished_tasks (
    id, leave_ms, end_ms, ready_ms, start_ms, cancel_ms, attempt, max_attempts, state, tenant, queue, type,
    worker_id, error_type, error_message, cancel_reason, spec
)
SELECT
    id, end_ms + 7 * 86400000::bigint, end_ms, ready_ms, start_ms, cancel_ms, attempt, max_attempts, state, tenant,
    queue, type, worker_id, error_type, error_message, cancel_reason, spec
FROM finished_tasks_before;

DROP TABLE finished_tasks_before;

-- The dead letters of a queue.
CREATE INDEX finished_tasks_dead ON finished_tasks (tenant, queue, id) WHERE state IN (8, 9, 10);
CREATE INDEX finished_tasks_labels ON finished_tasks USING gin (labels) WHERE labels IS NOT NULL;
-- Rows come about in the order of their ends, so that this costs next to nothing.
CREATE INDEX finished_tasks_places ON finished_tasks
    USING brin (end_ms int8_minmax_ops, queue text_bloom_ops, type text_bloom_ops)
    WITH (pages_per_range = 32, autosummarize = on);

-- Who holds a unique key. The row of a key that nobody holds any more is in nobody's way.
CREATE TABLE unique_keys (
    tenant text NOT NULL,
    queue text NOT NULL,
    key text NOT NULL,
    task_id uuid NOT NULL,
    -- The number of meshq.v1.UniqueScope.
    scope smallint NOT NULL,
    -- With the scope WINDOW: until when.
    until_ms bigint,
    PRIMARY KEY (tenant, queue, key)
);

-- The counter of each ordering key; its row is locked by whoever adds to the chain or takes from it.
CREATE TABLE ordering_keys (
    tenant text NOT NULL,
    queue text NOT NULL,
    key text NOT NULL,
    last_seq bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, queue, key)
);

ALTER TABLE queues
    -- Counts the changes, over all queues; 0 where nothing was ever set. Versions are taken under a lock
    -- that is held until the commit, so that who has seen a version has seen all before it.
    ADD COLUMN version bigint NOT NULL DEFAULT 0,
    ADD COLUMN update_ms bigint NOT NULL DEFAULT 0,
    -- Whether execution was ever told of settings, so that it has to hear of all changes.
    ADD COLUMN configured boolean NOT NULL DEFAULT false,
    -- An encoded meshq.v1.Queue with its settings and holds; NULL where there are none.
    ADD COLUMN settings bytea;

CREATE INDEX queues_version ON queues (version) WHERE version > 0;
CREATE SEQUENCE queue_versions;

-- Queues that were deleted, until every instance has heard of it.
CREATE TABLE deleted_queues (
    tenant text NOT NULL,
    name text NOT NULL,
    version bigint NOT NULL,
    configured boolean NOT NULL,
    delete_ms bigint NOT NULL,
    PRIMARY KEY (tenant, name)
);

CREATE INDEX deleted_queues_version ON deleted_queues (version);
