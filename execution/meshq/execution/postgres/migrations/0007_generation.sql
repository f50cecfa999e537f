-- Older code goes on working.
--
-- The generation of this database. Shards remember it: what a shard of another generation holds is of another
-- history of the tasks, and is dropped before it is used. The generation of databases that are older than this
-- step is all zeros, which is what shards that remember none are taken to have.
CREATE TABLE generations (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    generation uuid NOT NULL,
    -- Leases of earlier epochs are of another history, too.
    first_epoch bigint NOT NULL,
    begin_time timestamptz NOT NULL DEFAULT now()
);

INSERT INTO generations (generation, first_epoch) VALUES ('00000000-0000-0000-0000-000000000000', 1);

-- To be called whenever this database has come back from a copy, before anything uses it. Epochs go on at the
-- milliseconds of the clock. Far fewer than one a millisecond are ever used, so that this is above all that were
-- used after the copy was made, also where one copy comes back several times. Likewise versions of the ring: shards
-- and etcd may have seen later ones than this copy knows of, and would stay with them.
CREATE FUNCTION begin_generation() RETURNS uuid
    LANGUAGE sql
    BEGIN ATOMIC
        WITH members AS (UPDATE ring_shards SET version = version + 1000000)
        UPDATE ring_versions SET version = version + 1000000;
        UPDATE generations SET
            generation = gen_random_uuid(),
            first_epoch = 1 + setval(
                'shard_epochs',
                (
                    SELECT greatest(last_value, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
                    FROM shard_epochs
                )
            ),
            begin_time = clock_timestamp()
        RETURNING generation;
    END;

-- A new database may come after one that was lost, with shards and workers that remember it.
SELECT begin_generation() FROM shard_epochs WHERE NOT is_called;
