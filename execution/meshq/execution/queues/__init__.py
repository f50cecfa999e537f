"""The settings of queues: kept, told to the shards, and where the tasks of a limited queue live."""
