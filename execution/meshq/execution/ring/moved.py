"""Tasks that scripts have taken off a shard, to be queued on another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from meshq.execution.model import QueueItem
from meshq.execution.ring.extras import parse_extras

_FIELDS: Final = 7
_BOOST_MS: Final = 60_000
"""What a unit of priority takes off a score, as in `enqueue.lua`."""


def moved_items(reply: Sequence[Any]) -> list[QueueItem]:
    """Read what a script returns: id, attempt, lane, ready ms, score, extras, specification of each."""
    return [_moved(reply[at : at + _FIELDS]) for at in range(0, len(reply), _FIELDS)]


def _moved(fields: Sequence[Any]) -> QueueItem:
    task_id, attempt, lane, ready, score, extras, spec = fields
    ready_ms = int(ready)
    priority = (ready_ms - int(float(score))) // _BOOST_MS
    traits = parse_extras(extras) if extras else None
    return QueueItem(task_id, attempt, lane.decode(), ready_ms, priority, True, spec, traits)
