"""Where protobuf and the client's own types meet; nothing else in the client reads a message."""

from meshq.client.conversion.basics import fill_span, fill_time
from meshq.client.conversion.mesh import instances, ring, services, shard, worker
from meshq.client.conversion.queues import fill_settings, queue, queue_news, settings_mask
from meshq.client.conversion.specs import fill_changes, fill_filter, fill_task, state_number
from meshq.client.conversion.tasks import attempts, awaited, created, event, found, task

__all__ = [
    "attempts",
    "awaited",
    "created",
    "event",
    "fill_changes",
    "fill_filter",
    "fill_settings",
    "fill_span",
    "fill_task",
    "fill_time",
    "found",
    "instances",
    "queue",
    "queue_news",
    "ring",
    "services",
    "settings_mask",
    "shard",
    "state_number",
    "task",
    "worker",
]
