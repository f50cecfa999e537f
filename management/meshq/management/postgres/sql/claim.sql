-- Claims request ids, in the order of their names, so that two groups cannot wait for each other. What is
-- done where a claim was won stands behind this.
WITH won AS (
    INSERT INTO claims (claim, create_ms, fingerprint, task_ids)
    SELECT c.claim, %(now)s::bigint, c.fingerprint, c.task_ids
    FROM unnest(%(claims)s::text[], %(fingerprints)s::bigint[], %(claim_ids)s::bytea[])
        AS c (claim, fingerprint, task_ids)
    ON CONFLICT (claim) DO NOTHING
    RETURNING claim
)
