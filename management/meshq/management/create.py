"""Accepting tasks: every way in ends here.

A submission is the tasks of one request. Submissions that come together are one transaction. Where a
request id was used before, the first request's answer is given again and nothing is stored. After the
commit, and only then, the tasks are handed to the dispatcher; the callers do not wait for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from meshq.contract.errors import Conflict, InternalError, MeshqError, Overloaded, Reason
from meshq.management.group import GroupWriter
from meshq.management.ledger import Inserted, Ledger, RowsRefused
from meshq.management.model.claims import Answer, Claim, Submission, decoded_answers
from meshq.management.model.states import State
from meshq.management.model.task import DISPATCH_HORIZON_MS, NewTask, Sendable, TaskId, TaskRow, sendable
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_RETRY_DELAY: Final = 5.0
Insert: TypeAlias = Callable[[Sequence[Submission], int], Awaitable[Inserted]]
"""Stores a group; see `Ledger.insert`."""

_NONE: Final[frozenset[TaskId]] = frozenset()


class Accepted(NamedTuple):
    """What became of a submission.

    Attributes:
        earlier: When the request id was used before: what that request was answered, for each of its tasks.
            None when the tasks were stored now.
        refused: The ids of tasks that the ledger would not take.
        others: By the ids of tasks that were not stored since others hold their unique keys: their answers.
        waiting: The ids of tasks that wait for the ones before them in their chains.
    """

    earlier: Sequence[Answer] | None = None
    refused: frozenset[TaskId] = _NONE
    others: Mapping[TaskId, Answer] = MappingProxyType({})
    waiting: frozenset[TaskId] = _NONE


_STORED: Final = Accepted()


class Creator:
    """Accepts submissions.

    Args:
        ledger: Where they are stored.
        dispatch: Gets the tasks after the commit.
        created: Hears of them after the commit.
        now_ms: The clock.
        deadlines: Hears by when tasks must have started, or ended, likewise.
        replaced: Hears of tasks that have to go for new ones, with their states before, likewise.
        max_open_tasks: Above this many open tasks new ones are refused.
        lanes: How many groups are written at a time.
    """

    def __init__(
        self,
        ledger: Ledger,
        dispatch: Callable[[Sequence[Sendable]], None],
        now_ms: Callable[[], int],
        *,
        created: Callable[[Sequence[NewTask]], None],
        max_open_tasks: int,
        deadlines: Callable[[int | None, int | None], None] = lambda *_: None,
        replaced: Callable[[Sequence[tuple[TaskRow, int]]], None] = lambda _: None,
        lanes: int = 2,
    ) -> None:
        self._ledger = ledger
        self._dispatch = dispatch
        self._created = created
        self._now_ms = now_ms
        self._max_open_tasks = max_open_tasks
        self._deadlines = deadlines
        self._replaced = replaced
        self._writer = GroupWriter("create", partial(self._write, ledger.insert), lanes=lanes)
        # Apart, since these take several statements and wait for each other's keys.
        self._keyed = GroupWriter("create keyed", partial(self._write, ledger.insert_keyed), lanes=lanes)
        self._counted = 0
        self._accepted_since = 0
        self.room = self._writer.room

    async def start(self) -> None:
        """Begin to write."""
        await self._writer.start()
        await self._keyed.start()

    async def stop(self) -> None:
        """End; callers that still wait are cancelled."""
        await self._writer.stop()
        await self._keyed.stop()

    def submit(self, submission: Submission) -> asyncio.Future[Accepted]:
        """Store a submission with whatever else comes at this time.

        Raises:
            Overloaded: There are too many open tasks, or too much waits to be stored.
        """
        if self._counted + self._accepted_since >= self._max_open_tasks:
            raise Overloaded(
                f"There are {self._max_open_tasks} open tasks or more.",
                Reason.BACKLOG_FULL,
                retry_delay=_RETRY_DELAY,
            )
        writer = self._keyed if submission.keyed else self._writer
        return writer.submit(submission, len(submission.tasks), submission.size)

    async def earlier(self, claim: Claim) -> Accepted | None:
        """What a request was answered before under its id, if it was made before.

        Raises:
            Conflict: The id was used for another request.
        """
        found = (await self._ledger.claims([claim.name])).get(claim.name)
        if found is None:
            return None
        answer = _answer_of(claim, found)
        if isinstance(answer, MeshqError):
            raise answer
        return answer

    async def count_backlog(self) -> None:
        """Look how many tasks are open; between two looks only what was accepted here is added."""
        if not self._accepted_since and self._counted < self._max_open_tasks:
            return
        before = self._accepted_since
        try:
            self._counted = await self._ledger.open_count()
        except MeshqError as error:
            _log.info("backlog not counted", reason=error.message)
        else:
            self._accepted_since -= before

    async def _write(self, insert: Insert, submissions: Sequence[Submission]) -> list[Accepted | MeshqError]:
        # A name that comes twice in a group is won once; the others hear what the first was answered.
        first: dict[str, int] = {}
        chosen = [
            index
            for index, item in enumerate(submissions)
            if item.claim is None or first.setdefault(item.claim.name, index) == index
        ]
        answers: list[Accepted | MeshqError | None] = [None] * len(submissions)
        await self._insert(insert, [(index, submissions[index]) for index in chosen], answers)
        await self._answer_repeated(submissions, answers)
        return [answer or InternalError("A submission was not answered.") for answer in answers]

    async def _insert(
        self,
        insert: Insert,
        group: list[tuple[int, Submission]],
        answers: list[Accepted | MeshqError | None],
    ) -> None:
        try:
            inserted = await insert([item for _, item in group], self._now_ms())
        except RowsRefused as error:
            if len(group) > 1:
                middle = len(group) // 2
                await self._insert(insert, group[:middle], answers)
                await self._insert(insert, group[middle:], answers)
            else:
                _log.warning("the ledger refused rows", error=str(error))
                await self._insert_apart(*group[0], answers)
            return
        self._replaced(inserted.replaced)
        for index, item in group:
            if item.claim is None or item.claim.name in inserted.won:
                answers[index] = _accepted(inserted)
                self.stored(item.tasks, inserted)

    async def _insert_apart(
        self, index: int, item: Submission, answers: list[Accepted | MeshqError | None]
    ) -> None:
        if item.keyed:
            # What becomes of its tasks depends on each other: none is taken.
            answers[index] = Accepted(refused=frozenset(task.task_id for task in item.tasks))
            return
        inserted, refused = await self._ledger.insert_apart(item, self._now_ms())
        if item.claim is None or item.claim.name in inserted.won:
            answers[index] = Accepted(refused=refused)
            self.stored([task for task in item.tasks if task.task_id not in refused], inserted)

    def stored(self, tasks: Sequence[NewTask], inserted: Inserted) -> None:
        """Tasks were committed, but for those that others stand for: they are dispatched."""
        if inserted.others or inserted.waiting:
            tasks = [task for task in tasks if task.task_id not in inserted.others]
            self._created([_placed(task, inserted.waiting) for task in tasks])
            tasks = [task for task in tasks if task.task_id not in inserted.waiting]
        else:
            self._created(tasks)
        for special in filter(None, (task.special for task in tasks)):
            self._deadlines(special.start_by_ms, special.close_by_ms)
        self._accepted_since += len(tasks)
        horizon_ms = self._now_ms() + DISPATCH_HORIZON_MS
        near = [sendable(task, repeat=inserted.repeat) for task in tasks if task.ready_ms <= horizon_ms]
        self._dispatch(near)

    async def _answer_repeated(
        self, submissions: Sequence[Submission], answers: list[Accepted | MeshqError | None]
    ) -> None:
        open_ = [
            (i, item, item.claim) for i, item in enumerate(submissions) if answers[i] is None and item.claim
        ]
        if not open_:
            return
        found = await self._ledger.claims([claim.name for _, _, claim in open_])
        for index, item, claim in open_:
            answer = _answer_of(claim, found.get(claim.name))
            answers[index] = answer
            if answer is _STORED and not item.keyed:
                # An earlier try of this very submission was committed, but its answer did not arrive.
                self.stored(item.tasks, Inserted(_NO_NAMES, repeat=True))


_NO_NAMES: Final[frozenset[str]] = frozenset()


def _placed(task: NewTask, waiting: frozenset[TaskId]) -> NewTask:
    return task._replace(state=State.WAITING) if task.task_id in waiting else task


def _answer_of(claim: Claim, found: Claim | None) -> Accepted | MeshqError:
    if found is None:
        # It was there a moment ago and has reached its age of 24 hours since.
        return Overloaded("The request_id has just expired; retry.", Reason.OVERLOADED, retry_delay=0.1)
    if found.fingerprint != claim.fingerprint:
        return Conflict("The request_id was used with another content; use a new one.")
    if found.answers == claim.answers:
        return _STORED
    return Accepted(decoded_answers(found.answers, claim.tasks))


def _accepted(inserted: Inserted) -> Accepted:
    if inserted.others or inserted.waiting:
        return Accepted(None, _NONE, inserted.others, inserted.waiting)
    return _STORED
