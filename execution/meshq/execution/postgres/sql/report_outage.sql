INSERT INTO shard_outages AS o (shard, instance) VALUES (%(shard)s, %(instance)s)
ON CONFLICT (shard, instance) DO UPDATE SET
    seen_time = now(),
    begin_time = CASE
        WHEN o.seen_time < now() - make_interval(secs => %(seconds)s) THEN now() ELSE o.begin_time
    END
