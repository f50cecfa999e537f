INSERT INTO deferrals
    (task_id, attempt, lease_epoch, lease_number, lease_ms, timeout_ms, shard, worker_id, lane, extras)
SELECT
    d.task_id, d.attempt, d.lease_epoch, d.lease_number, d.lease_ms, d.timeout_ms, d.shard, d.worker_id, d.lane,
    d.extras
FROM unnest(
    %s::uuid[], %s::integer[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::text[], %s::text[],
    %s::text[], %s::bytea[]
) AS d (task_id, attempt, lease_epoch, lease_number, lease_ms, timeout_ms, shard, worker_id, lane, extras)
ON CONFLICT (task_id, attempt) DO UPDATE
SET lease_epoch = excluded.lease_epoch, lease_number = excluded.lease_number, lease_ms = excluded.lease_ms,
    timeout_ms = excluded.timeout_ms, shard = excluded.shard, worker_id = excluded.worker_id,
    lane = excluded.lane, extras = excluded.extras
