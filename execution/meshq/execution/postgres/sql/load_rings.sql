SELECT v.version, s.name, s.address, s.weight, s.draining, s.out
FROM ring_versions AS v LEFT JOIN ring_shards AS s USING (version)
WHERE v.version >= %s
ORDER BY v.version, s.name
