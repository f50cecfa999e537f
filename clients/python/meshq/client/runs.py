"""Running many tasks without the I/O: tasks that were created are waited for in groups until they have ended.

A group is answered when all of its tasks have ended, or after a moment, so that one slow task does not keep
the results of the others; what is open then is waited for again, and ever longer while nothing ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

from meshq.client.models import Awaited, Created, Ran, Task, TaskView
from meshq.client.operations import Operation, await_tasks
from meshq.client.waiting import WAIT_SECONDS
from meshq.contract.errors import InvalidRequest, MeshqError, NotFound, Reason
from meshq.contract.limits import MAX_FRAME_ITEMS

DEFAULT_MAX_OPEN: Final = 10_000
"""Tasks that have been created and have not ended; some are needed to keep all workers busy."""
MAX_CALLS: Final = 4
"""Groups that are waited for at a time."""
_FIRST_WAIT: Final = 2.0


class Runs:
    """The state of one run of many tasks.

    Args:
        view: How much of each task is wanted.
        max_open: How many tasks may be open at a time.
    """

    def __init__(self, view: TaskView, max_open: int = DEFAULT_MAX_OPEN) -> None:
        if max_open < 1:
            raise InvalidRequest.field("max_open", f"must be at least 1, not {max_open}")
        self._view = view
        self._max_open = max_open
        self._waiting: deque[str] = deque()
        self._indexes: dict[str, list[int]] = {}
        self._calls = 0
        self._most = MAX_FRAME_ITEMS
        self._wait = _FIRST_WAIT
        self._all_created = False

    @property
    def full(self) -> bool:
        """Whether no more tasks should be created until some have ended."""
        return len(self._indexes) >= self._max_open

    @property
    def finished(self) -> bool:
        """Whether all tasks were created and have ended."""
        return self._all_created and not self._indexes

    def created(self, created: Created) -> Iterator[Ran]:
        """A task was created; one that was refused has ended with that."""
        if created.task_id is None:
            yield Ran(created.index, None, created.error)
            return
        # Several may have come to the same task by its unique key.
        indexes = self._indexes.setdefault(created.task_id, [])
        indexes.append(created.index)
        if len(indexes) == 1:
            self._waiting.append(created.task_id)

    def all_created(self) -> None:
        """There are no more tasks."""
        self._all_created = True

    def take(self) -> Sequence[str]:
        """The next group to wait for; empty when there is none, or it is worth waiting for more tasks."""
        whole = len(self._waiting) >= self._most or self.full or self._all_created
        if not self._waiting or self._calls >= MAX_CALLS or (self._calls and not whole):
            return ()
        return self._took()

    def _took(self) -> Sequence[str]:
        self._calls += 1
        return [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]

    def operation(self, group: Sequence[str]) -> Operation[Awaited]:
        """The call that waits for a group."""
        return await_tasks(group, "all", self._view, self._wait)

    def awaited(self, group: Sequence[str], answer: Awaited) -> Iterator[Ran]:
        """What became of the tasks of a group that have ended; the others wait for the next call."""
        self._calls -= 1
        still_open = [task.task_id for task in answer.tasks if not task.done]
        # Those that are open have waited longest, but who waits for them keeps the others waiting.
        self._waiting.extend(still_open)
        ended = len(still_open) < len(group)
        self._wait = _FIRST_WAIT if ended else min(2 * self._wait, WAIT_SECONDS)
        for task in answer.tasks:
            if task.done:
                yield from self._ran(task.task_id, task, None)
        for task_id in answer.missing:
            error = NotFound(f"There is no task {task_id} any more.", Reason.TASK_NOT_FOUND, task_id=task_id)
            yield from self._ran(task_id, None, error)

    def failed(self, group: Sequence[str], error: MeshqError) -> None:
        """A call has failed: smaller groups are asked for where the answer would have been too large.

        Raises:
            MeshqError: The error, where smaller groups are of no use.
        """
        too_large = isinstance(error, InvalidRequest) and len(group) > 1
        if not too_large:
            raise error
        self._calls -= 1
        self._most = max(1, len(group) // 4)
        self._waiting.extendleft(reversed(group))

    def _ran(self, task_id: str, task: Task | None, error: MeshqError | None) -> Iterator[Ran]:
        for index in self._indexes.pop(task_id, ()):
            yield Ran(index, task, error)
