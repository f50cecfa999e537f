-- Which of some leases are kept for whoever completes their tasks.
SELECT d.task_id, d.attempt, d.lease_epoch, d.lease_number
FROM unnest(%s::uuid[], %s::integer[], %s::bigint[], %s::bigint[]) AS i (task_id, attempt, epoch, number)
JOIN deferrals AS d ON d.task_id = ANY (ARRAY[i.task_id]) AND d.attempt = i.attempt
    AND d.lease_epoch = i.epoch AND d.lease_number = i.number
