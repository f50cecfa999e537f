"""The ring of Redis-protocol shards: which shard a task belongs to, and what is done on one atomically."""
