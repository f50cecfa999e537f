"""What execution reports becomes what the ledger says; the answer says what execution does next.

Reports that come together are written together. Most of them end their task whatever its row says:
those are one statement, whose DELETE decides between reports that race. Only what that statement did
not match, and attempts that did not succeed, are looked up and decided row by row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, Protocol

from meshq.contract.errors import MeshqError
from meshq.management.group import GroupWriter
from meshq.management.ledger import Ended, Ledger
from meshq.management.model.chains import ChainKey
from meshq.management.model.reports import (
    DONE,
    KEEP,
    Directive,
    Finish,
    Report,
    Retry,
    Rules,
    Start,
    answer_to_start,
    certain_finish,
    decide,
    is_start,
)
from meshq.management.model.task import TaskId, TaskRow
from meshq.management.watch.bus import Over

_ROUNDS: Final = 8
"""How often a row may change between the look at it and the write, which takes a race each time."""
_FEW: Final = 16
"""So many rows are had together with their ends faster than they are read afterwards."""


class Commits(Protocol):
    """Who is told of changes."""

    @property
    def wanted(self) -> bool:
        """Whether anybody wants to know."""

    @property
    def rows_wanted(self) -> bool:
        """Whether somebody looks at every task that changes."""

    def committed(self, rows: Sequence[TaskRow]) -> None:
        """Changes were committed."""

    def over(self, ends: Sequence[Over]) -> None:
        """Attempts have ended their tasks; who wants to know how reads the rows."""

    def committed_unseen(self, count: int) -> None:
        """Changes were committed while nobody wanted them."""


class Chains(Protocol):
    """Who lets the next tasks of chains go."""

    def release(self, keys: Iterable[ChainKey]) -> None:
        """Tasks of these chains have ended."""


class Finisher:
    """Takes reports.

    Args:
        ledger: Where tasks end.
        commits: Hears of every change, after its commit.
        now_ms: The clock.
        rules: What decides about further attempts of a task.
        chains: Hears where a task of a chain has ended, after the commit.
        lanes: How many groups are written at a time.
    """

    def __init__(
        self,
        ledger: Ledger,
        commits: Commits,
        now_ms: Callable[[], int],
        *,
        rules: Callable[[TaskRow], Rules] = lambda _: Rules(),
        chains: Chains | None = None,
        lanes: int = 2,
    ) -> None:
        self._ledger = ledger
        self._commits = commits
        self._now_ms = now_ms
        self._rules = rules
        self._chains = chains
        self._writer = GroupWriter("finish", self._write, lanes=lanes)
        self.start = self._writer.start
        self.stop = self._writer.stop

    def submit(self, reports: Sequence[Report]) -> asyncio.Future[list[Directive]]:
        """Apply reports with whatever else comes at this time.

        Returns:
            One directive for each report.

        Raises:
            Overloaded: Too much waits to be written.
        """
        size = sum(len(report.error_message) for report in reports)
        return self._writer.submit(reports, len(reports), size)

    async def end(self, ends: Sequence[Finish]) -> list[TaskRow]:
        """End tasks that nobody has to be asked about, such as cancelled ones that no worker has.

        Returns:
            The rows that were ended by this call.
        """
        ended = await self._ledger.finish(ends, self._now_ms()) if ends else []
        self._commits.committed(ended)
        self._release({row.chain for row in ended if row.chain})
        return ended

    async def _end_for(self, ends: Sequence[Finish]) -> Sequence[Ended]:
        """End tasks; what they look like then is read of all only where somebody looks at all.

        Of a few it is read as well, which spares those who watch them another statement.
        """
        few = len(ends) <= _FEW and self._commits.wanted
        if not ends or few or self._commits.rows_wanted:
            return [Ended(row.state, [row.task_id]) for row in await self.end(ends)]
        ended = await self._ledger.finish_quietly(ends, self._now_ms())
        self._release({chain for group in ended for chain in group.chains})
        await self._tell(ended, ends)
        return ended

    def _release(self, chains: Collection[ChainKey]) -> None:
        if chains and self._chains:
            self._chains.release(chains)

    async def _tell(self, ended: Sequence[Ended], ends: Sequence[Finish]) -> None:
        if ended and self._commits.rows_wanted:
            # Somebody has come during the statement, and may have read the rows just before its commit.
            ids = [task_id for group in ended for task_id in group.task_ids]
            self._commits.committed(list((await self._ledger.get_tasks(ids, full=False)).values()))
        elif self._commits.wanted:
            self._commits.over(_overs(ended, ends))
        else:
            self._commits.committed_unseen(sum(len(group.task_ids) for group in ended))

    async def _write(self, groups: Sequence[Sequence[Report]]) -> list[list[Directive] | MeshqError]:
        reports = [report for group in groups for report in group]
        directives = await self._finish_certain(reports)
        if None in directives:
            await self._decide_rest(reports, directives)
            await self._note_starts(reports, directives)
        answered = iter(directives)
        return [[next(answered) or KEEP for _ in group] for group in groups]

    async def _finish_certain(self, reports: Sequence[Report]) -> list[Directive | None]:
        now_ms = self._now_ms()
        directives: list[Directive | None] = [None] * len(reports)
        places: dict[TaskId, int] = {}
        ends: list[Finish] = []
        for index, report in enumerate(reports):
            end = certain_finish(report, now_ms)
            if end is not None and report.task_id not in places:
                places[report.task_id] = index
                ends.append(end)
        for group in await self._end_for(ends):
            done = DONE[group.state]
            for task_id in group.task_ids:
                directives[places[task_id]] = done
        return directives

    async def _decide_rest(self, reports: Sequence[Report], directives: list[Directive | None]) -> None:
        """Look at the rows, decide, write where the rows still are what they were, and look again.

        A task that another of these reports changes is answered for only after that: an earlier answer would
        be outdated, and let a task that ends here run again.
        """
        for _ in range(_ROUNDS):
            rest = [i for i, report in enumerate(reports) if directives[i] is None and not is_start(report)]
            if not rest:
                return
            rows = await self._ledger.get_tasks(list({reports[i].task_id for i in rest}), full=False)
            finishes: dict[TaskId, Finish] = {}
            retries: dict[TaskId, Retry] = {}
            answers: dict[int, Directive] = {}
            for index in rest:
                report = reports[index]
                decision = decide(report, rows.get(report.task_id), self._now_ms(), self._rules)
                if isinstance(decision, Directive):
                    answers[index] = decision
                elif isinstance(decision, Finish):
                    finishes.setdefault(report.task_id, decision)
                else:
                    retries.setdefault(report.task_id, decision)
            changed = finishes.keys() | retries.keys()
            for index, answer in answers.items():
                if reports[index].task_id not in changed:
                    directives[index] = answer
            await self._apply(finishes, retries)

    async def _apply(self, finishes: dict[TaskId, Finish], retries: dict[TaskId, Retry]) -> None:
        # The directives are read from the rows in the next round, whoever wrote them.
        await self.end(list(finishes.values()))
        if retries:
            self._commits.committed(await self._ledger.retry(list(retries.values()), self._now_ms()))

    async def _note_starts(self, reports: Sequence[Report], directives: list[Directive | None]) -> None:
        starts = {
            report.task_id: Start(report.task_id, report.attempt, report.start_ms, report.worker_id)
            for report in reports
            if is_start(report)
        }
        if not starts:
            return
        changed = await self._ledger.start_attempts(list(starts.values()), self._now_ms())
        self._commits.committed(changed)
        begun = {row.task_id for row in changed}
        unmoved = [i for i, report in enumerate(reports) if is_start(report) and report.task_id not in begun]
        rows = (
            await self._ledger.get_tasks([reports[i].task_id for i in unmoved], full=False) if unmoved else {}
        )
        for index in unmoved:
            directives[index] = answer_to_start(
                reports[index], rows.get(reports[index].task_id), self._now_ms()
            )


def _overs(ended: Sequence[Ended], ends: Sequence[Finish]) -> list[Over]:
    reported = {end.task_id: end for end in ends}
    return [_over(reported[task_id], group.max_attempts) for group in ended for task_id in group.task_ids]


def _over(end: Finish, max_attempts: int) -> Over:
    # The row has the start and the worker where the report has not.
    known = max_attempts and end.start_ms and end.worker_id
    return Over(end.task_id, end.attempt, end if known else None, max_attempts)
