SELECT q.tenant, q.queue FROM queue_configs AS q
JOIN unnest(%s::text[], %s::text[]) AS asked (tenant, queue) USING (tenant, queue)
WHERE q.homed
