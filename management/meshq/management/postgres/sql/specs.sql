-- Reads specifications by id from both tables in one snapshot: of the first ids up to so many bytes, and one more at
-- most. Where an ended task can be follows from its id, which leaves out most partitions.
WITH found AS (
    SELECT o.id, o.spec FROM open_tasks AS o WHERE o.id = ANY (%(ids)s::uuid[])
    UNION ALL
    SELECT f.id, f.spec
    FROM finished_tasks AS f
    WHERE f.id = ANY (%(ids)s::uuid[]) AND f.leave_ms >= %(first)s::bigint AND f.leave_ms < %(behind)s::bigint
),
sized AS (
    SELECT
        w.place, f.id, f.spec,
        sum(octet_length(f.spec)) OVER (ORDER BY w.place) - octet_length(f.spec) AS before
    FROM unnest(%(ids)s::uuid[]) WITH ORDINALITY AS w (id, place)
    JOIN found AS f ON f.id = w.id
)
SELECT place, uuid_send(id), spec FROM sized WHERE before < %(bytes)s::bigint ORDER BY place
