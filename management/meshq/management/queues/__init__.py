"""Queues: what they are set to, what they hold, and how they are stopped and cleared."""
