-- Reads a page of tasks, the newest first, from both tables in one snapshot.
(
    SELECT
        <open row>
    FROM open_tasks AS o
    WHERE
        id >= %(lowest)s::uuid AND id < %(highest)s::uuid AND tenant = %(tenant)s::text
        AND (%(states)s::smallint[] IS NULL OR state = ANY (%(states)s::smallint[]))
        AND (%(type)s::text = '' OR type = %(type)s)
        AND (%(queue)s::text = '' OR queue = %(queue)s)
    ORDER BY id DESC
    LIMIT %(limit)s::bigint
)
UNION ALL
(
    SELECT
        <finished row>
    FROM finished_tasks AS f
    WHERE
        id >= %(lowest)s::uuid AND id < %(highest)s::uuid AND leave_ms > %(now)s::bigint
        AND tenant = %(tenant)s::text
        AND (%(states)s::smallint[] IS NULL OR state = ANY (%(states)s::smallint[]))
        AND (%(type)s::text = '' OR type = %(type)s)
        AND (%(queue)s::text = '' OR queue = %(queue)s)
    ORDER BY id DESC
    LIMIT %(limit)s::bigint
)
ORDER BY 1 DESC
LIMIT %(limit)s::bigint
