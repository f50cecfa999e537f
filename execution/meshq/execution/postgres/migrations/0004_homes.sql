-- A queue that has once had limits as a whole lives on one shard whenever it has limits, so that no limit key is ever
-- counted by two shards.
ALTER TABLE queue_configs ADD COLUMN homed boolean NOT NULL DEFAULT false;
