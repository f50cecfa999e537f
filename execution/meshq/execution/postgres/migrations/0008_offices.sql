-- Older code goes on working.
--
-- Who does what one instance does for all, see meshq.mesh.election. What is written under an office is committed only
-- while its term stands.
CREATE TABLE offices (
    name text PRIMARY KEY,
    -- Counts the changes of office.
    term bigint NOT NULL,
    holder text NOT NULL,
    take_time timestamptz NOT NULL,
    -- Until when nobody else takes the office, whatever etcd says; it is in the past while etcd answers.
    held_until timestamptz NOT NULL
) WITH (fillfactor = 50);
