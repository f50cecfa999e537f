-- Older code goes on working.
--
-- To be called whenever this database has come back from a copy, before anything uses it. Execution keeps the
-- settings of a queue with the highest version that it was told of, which may be one of after the copy was made;
-- so all of them are told again under later versions.
CREATE FUNCTION begin_generation() RETURNS bigint
    LANGUAGE sql
    BEGIN ATOMIC
        UPDATE queues SET version = version + 1000000 WHERE version > 0;
        UPDATE deleted_queues SET version = version + 1000000;
        SELECT setval('queue_versions', last_value + 1000000) FROM queue_versions;
    END;
