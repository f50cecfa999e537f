-- Reads what is needed to dispatch tasks again, where the attempt is still the one that is missing: the first ones
-- up to so many bytes of specifications, and one more at most.
WITH wanted AS (
    SELECT
        i.id, i.attempt, i.place,
        sum(octet_length(o.spec)) OVER (ORDER BY i.place) - octet_length(o.spec) AS before
    FROM unnest(%(ids)s::uuid[], %(attempts)s::integer[]) WITH ORDINALITY AS i (id, attempt, place)
    JOIN open_tasks AS o ON o.id = ANY (ARRAY[i.id]) AND o.attempt = i.attempt
    WHERE o.state NOT IN (1, 6)
)
SELECT
    <sendable>
FROM wanted AS w
JOIN open_tasks AS o ON o.id = ANY (ARRAY[w.id]) AND o.attempt = w.attempt
WHERE w.before < %(bytes)s::bigint
ORDER BY w.place
