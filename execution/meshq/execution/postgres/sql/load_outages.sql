SELECT instance, extract(epoch FROM now() - begin_time)::float8
FROM shard_outages
WHERE shard = %(shard)s AND seen_time >= now() - make_interval(secs => %(seconds)s)
