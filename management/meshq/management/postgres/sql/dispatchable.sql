-- Reads what is needed to dispatch tasks again, where the attempt is still the one that is missing.
SELECT
    uuid_send(o.id), o.attempt, o.tenant, o.queue, o.type, o.ready_ms, o.priority, o.fairness_key, true, o.spec
FROM unnest(%(ids)s::uuid[], %(attempts)s::integer[]) AS i (id, attempt)
JOIN open_tasks AS o ON o.id = i.id AND o.attempt = i.attempt
WHERE o.state NOT IN (1, 6)
