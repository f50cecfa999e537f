-- Says for each range of ids whether any task in it is open.
SELECT EXISTS (SELECT FROM open_tasks AS o WHERE o.id >= r.first AND o.id < r.behind)
FROM unnest(%(firsts)s::uuid[], %(ends)s::uuid[]) WITH ORDINALITY AS r (first, behind, place)
ORDER BY r.place
