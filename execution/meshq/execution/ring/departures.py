"""Takes waiting tasks off a shard, to be queued on others as repeats; each operation is one script."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from meshq.contract.limits import SOFT_FRAME_BYTES
from meshq.execution.model import QueueItem
from meshq.execution.ring import scripts
from meshq.execution.ring.extras import parse_extras

_FIELDS: Final = 7
_BOOST_MS: Final = 60_000
"""What a unit of priority takes off a score, as in `enqueue.lua`."""


class Departures:
    """See the module. Operations raise `ShardError`.

    Args:
        run: Runs a script on the shard.
        instance_id: This instance.
    """

    def __init__(self, run: Callable[..., Awaitable[Any]], instance_id: str) -> None:
        self._run = run
        self._instance_id = instance_id

    async def hand_over(
        self, task_ids: Sequence[bytes], reserve_ms: int, *, strays_only: bool
    ) -> tuple[int, list[QueueItem]] | None:
        """Take some tasks off that wait.

        Args:
            task_ids: Which, at most 1,000; those that are leased or not here stay out of it.
            reserve_ms: For how long no other instance may do this.
            strays_only: Leave those that have no limit key, or one whose slot is here.

        Returns:
            How many were looked at, and what was taken, about a frame's bytes; None while another instance
            does this, or the shard does not serve its own slots and strays are wanted.
        """
        mine, looked_at, *reply = await self._run(
            scripts.HAND_OVER, self._instance_id, reserve_ms, SOFT_FRAME_BYTES, int(strays_only), *task_ids
        )
        return (looked_at, _items(reply)) if mine else None

    async def move_away(self, scope: str, limit: int) -> list[QueueItem]:
        """Take ready tasks of a queue off that lives on another shard.

        Returns:
            At most `limit` tasks, and about a frame's bytes; empty when none is left or the queue lives here.
        """
        return _items(await self._run(scripts.MOVE_AWAY, scope, limit, SOFT_FRAME_BYTES))


def _items(reply: Sequence[Any]) -> list[QueueItem]:
    """Read what a script returns: id, attempt, lane, ready ms, score, extras, specification of each."""
    return [_item(reply[at : at + _FIELDS]) for at in range(0, len(reply), _FIELDS)]


def _item(fields: Sequence[Any]) -> QueueItem:
    task_id, attempt, lane, ready, score, extras, spec = fields
    ready_ms = int(ready)
    priority = (ready_ms - int(float(score))) // _BOOST_MS
    traits = parse_extras(extras) if extras else None
    return QueueItem(task_id, attempt, lane.decode(), ready_ms, priority, True, spec, traits)
