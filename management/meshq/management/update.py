"""Changing a task that does not run yet.

A task that no shard can know is changed in the ledger alone. Any other attempt is recalled from the shards
first: where a worker has it nothing is changed, and else the number of the attempt is passed over, so that
whatever is still under way of the old one is not taken for the new.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeAlias

from meshq.contract.errors import MeshqError, Overloaded, PreconditionFailed, Reason, Unavailable
from meshq.management.ledger import Ledger, one_task
from meshq.management.model.changes import UPDATABLE, Updated
from meshq.management.model.placement import OFF_THE_SHARDS, Withdrawn
from meshq.management.model.states import State
from meshq.management.model.task import (
    DISPATCH_HORIZON_MS,
    OpenAttempt,
    Sendable,
    TaskId,
    TaskRow,
    never_dispatched,
)

_ROUNDS: Final = 8
"""How often a task may change between the look at it and the write, which takes a race each time."""
_RETRY_DELAY: Final = 1.0

Change: TypeAlias = Callable[[TaskRow, int], Updated]
"""What a task with its specification becomes, at a time."""


class Recaller(Protocol):
    """Asks the shards."""

    async def recall(self, attempts: Sequence[OpenAttempt]) -> list[Withdrawn]:
        """Take attempts off the shards that no worker has; those at workers go on."""


class Updater:
    """See the module.

    Args:
        ledger: Where the tasks are.
        recaller: Takes them off the shards.
        dispatch: Gets them afterwards.
        committed: Hears of the change, after its commit.
        now_ms: The clock.
        deadlines: Hears by when changed tasks must have started, or ended.
    """

    def __init__(
        self,
        ledger: Ledger,
        recaller: Recaller,
        dispatch: Callable[[Sequence[Sendable]], None],
        committed: Callable[[Sequence[TaskRow]], None],
        now_ms: Callable[[], int],
        *,
        deadlines: Callable[[int | None, int | None], None] = lambda *_: None,
    ) -> None:
        self._ledger = ledger
        self._recaller = recaller
        self._dispatch = dispatch
        self._committed = committed
        self._now_ms = now_ms
        self._deadlines = deadlines

    async def update(self, task_id: TaskId, change: Change) -> TaskRow:
        """Change a task; returns it with its specification.

        Raises:
            NotFound: There is no such task.
            PreconditionFailed: A worker has it, it is to be cancelled, or it has ended.
            Unavailable: A shard could not say whether it has it.
            Overloaded: It changes all the time.
        """
        for _ in range(_ROUNDS):
            row = await one_task(self._ledger, task_id, full=False)
            if row.state not in UPDATABLE:
                raise _started(State(row.state).name)
            if self._at_home(row):
                changed = await self._ledger.update(
                    task_id,
                    row.attempt,
                    self._now_ms(),
                    lambda found: self._changed(change, found) if self._at_home(found) else None,
                )
            else:
                await self._recall(row)
                changed = await self._pass_over(row, change)
            if changed is not None:
                await self._follow_up(changed)
                return changed
        raise Overloaded("The task changes all the time; try again.", retry_delay=_RETRY_DELAY)

    def _at_home(self, row: TaskRow) -> bool:
        return never_dispatched(row.state, row.ready_ms, self._now_ms())

    async def _recall(self, row: TaskRow) -> None:
        attempt = OpenAttempt(row.task_id, row.attempt, row.state, row.tenant, "")
        try:
            (state,) = await self._recaller.recall([attempt])
        except MeshqError as error:
            raise _uncertain() from error
        if state == Withdrawn.UNCERTAIN:
            raise _uncertain()
        if state not in OFF_THE_SHARDS:
            raise _started("at a worker")

    async def _pass_over(self, row: TaskRow, change: Change) -> TaskRow | None:
        # If this fails the shards take the attempt again once they have forgotten the recall, which is in two
        # minutes, and the sweeper brings it.
        return await self._ledger.pass_over(
            row.task_id,
            row.attempt,
            self._now_ms(),
            lambda found: None if found.state == State.CANCELLING else self._changed(change, found),
        )

    def _changed(self, change: Change, row: TaskRow) -> Updated:
        updated = change(row, self._now_ms())
        self._deadlines(updated.start_by_ms, updated.close_by_ms)
        return updated

    async def _follow_up(self, row: TaskRow) -> None:
        self._committed([row])
        near = row.ready_ms <= self._now_ms() + DISPATCH_HORIZON_MS
        if near and row.state != State.WAITING:
            self._dispatch(await self._ledger.sendables([(row.task_id, row.attempt)]))


def _started(how: str) -> PreconditionFailed:
    return PreconditionFailed(
        f"The task is {how}; only one that does not run yet is changed.", Reason.TASK_STARTED
    )


def _uncertain() -> Unavailable:
    return Unavailable(
        "A shard could not say whether it has the task; try again.",
        Reason.SHARD_UNAVAILABLE,
        retry_delay=_RETRY_DELAY,
    )
