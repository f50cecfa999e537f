SELECT s.version, s.name, s.address, s.weight, s.draining, s.out
FROM ring_shards AS s
WHERE s.version = (SELECT max(version) FROM ring_versions)
ORDER BY s.name
