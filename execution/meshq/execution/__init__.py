"""Execution: tasks as they run. The ring of shards, leases, worker sessions, attempts and results."""
