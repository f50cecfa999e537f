"""The execution database: attempts and the versions of the ring."""
