-- Says for each range of ids and a retention, as ids say it in their lowest bits, whether any task needs attempts that
-- are older than its retention: one that is open and has had some, or one that ended long after its last attempt and has
-- not left yet. The latter was cancelled or has expired, for all others end with an attempt.
SELECT
    EXISTS (
        SELECT FROM open_tasks AS o
        WHERE
            o.id >= r.first AND o.id < r.behind AND o.attempt > 1
            AND r.retention IN (-1, get_byte(uuid_send(o.id), 15) & 7)
    )
    OR EXISTS (
        SELECT FROM finished_tasks AS f
        WHERE
            f.id >= r.first AND f.id < r.behind AND f.attempt > 1 AND f.state IN (9, 10)
            AND f.leave_ms >= %(now)s::bigint AND r.retention IN (-1, get_byte(uuid_send(f.id), 15) & 7)
    )
FROM unnest(%(firsts)s::uuid[], %(ends)s::uuid[], %(retentions)s::integer[]) WITH ORDINALITY
    AS r (first, behind, retention, place)
ORDER BY r.place
