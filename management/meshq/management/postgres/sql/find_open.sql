-- Says for each range of ids whether any task in it is open, or any that has had an attempt.
SELECT EXISTS (
    SELECT FROM open_tasks AS o
    WHERE o.id >= r.first AND o.id < r.behind AND (o.attempt > 1 OR NOT %(attempted)s::boolean)
)
FROM unnest(%(firsts)s::uuid[], %(ends)s::uuid[]) WITH ORDINALITY AS r (first, behind, place)
ORDER BY r.place
