-- Reads what is needed to dispatch tasks again, where the attempt is still the one that is missing.
SELECT
    <sendable>
FROM unnest(%(ids)s::uuid[], %(attempts)s::integer[]) AS i (id, attempt)
JOIN open_tasks AS o ON o.id = i.id AND o.attempt = i.attempt
WHERE o.state NOT IN (1, 6)
