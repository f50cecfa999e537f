-- Older code goes on working.
--
-- A database that has come back from a copy has forgotten terms of offices, and who holds one may be running still. No
-- term may be counted twice, so they go on far above; and nobody holds an office of the time of the copy.
ALTER FUNCTION begin_generation() RENAME TO raise_queue_versions;

CREATE FUNCTION begin_generation() RETURNS bigint
    LANGUAGE sql
    BEGIN ATOMIC
        UPDATE offices SET term = term + 1000000, held_until = clock_timestamp();
        SELECT raise_queue_versions();
    END;
