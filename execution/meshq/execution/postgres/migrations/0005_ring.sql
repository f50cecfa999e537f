-- Older code goes on working.
--
-- The ring changes while everything runs.

-- No instance could use the shard: it has no points on the circle, and nobody asks it anything.
ALTER TABLE ring_shards ADD COLUMN out boolean NOT NULL DEFAULT false;

-- Which instances cannot use which shards, by the clock of the database.
CREATE TABLE shard_outages (
    shard text NOT NULL,
    instance text NOT NULL,
    begin_time timestamptz NOT NULL DEFAULT now(),
    -- Instances say it again and again; one that has not for long says nothing.
    seen_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (shard, instance)
);
