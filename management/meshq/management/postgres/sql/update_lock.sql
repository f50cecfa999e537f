-- Reads an open task that is to be changed, and keeps it from changing otherwise.
SELECT
    <open row>, o.spec
FROM open_tasks AS o
WHERE o.id = %(id)s::uuid AND o.attempt = %(attempt)s::integer
FOR UPDATE
