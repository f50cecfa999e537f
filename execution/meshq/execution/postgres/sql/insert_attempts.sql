-- The end of many attempts at once; those that have ended before are left as they are. Tells how many are new.
INSERT INTO attempts
    (task_id, attempt, outcome, lease_epoch, lease_number, start_ms, end_ms, tenant, worker_id, success, error)
SELECT *
FROM unnest(
    %s::uuid[], %s::integer[], %s::smallint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[],
    %s::text[], %s::text[], %s::bytea[], %s::bytea[]
)
ON CONFLICT DO NOTHING
