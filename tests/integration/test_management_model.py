"""Random operations on the real use cases and the real ledger, against what is promised of them.

Execution is played here: one shard in memory, whose workers answer in any way, whose reports are repeated or
held back, and which may lose everything. The clock goes on only when it is told to.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Sequence
from itertools import count
from typing import Any, NamedTuple, TypeVar

import pytest
from fixtures.offices import InOffice
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from meshq.contract.errors import Conflict, Reason
from meshq.management.cancel import Canceller
from meshq.management.chains import ChainReleaser
from meshq.management.conversion.traits import retry_policy
from meshq.management.create import Creator
from meshq.management.dispatch.deadlines import DeadlineKeeper
from meshq.management.dispatch.outbox import Outbox
from meshq.management.dispatch.promote import Promoter
from meshq.management.dispatch.sweep import Sweeper
from meshq.management.finish import Finisher
from meshq.management.lookout import Lookout, Outlook
from meshq.management.model.claims import Verdict
from meshq.management.model.placement import Compared, Withdrawn
from meshq.management.model.queues import UNSET, QueueSettings
from meshq.management.model.reports import Directive, DirectiveKind, Outcome, Report, Rules
from meshq.management.model.states import TERMINAL, State, allowed
from meshq.management.model.task import DISPATCH_HORIZON_MS, OpenAttempt, Sendable, TaskId, TaskRow
from meshq.management.postgres.database import Database, LedgerConnection
from meshq.management.postgres.ledger import PostgresLedger
from meshq.management.servicers.requests import created, single, submit
from meshq.management.watch.bus import Over
from meshq.v1 import task_pb2

T = TypeVar("T")
AGAIN = frozenset({State.PENDING, State.RETRYING, State.SCHEDULED})
PHASES = [Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink]
ENDS = [item for item in Outcome if item != Outcome.UNSPECIFIED]


class Held(NamedTuple):
    """A task on the shard."""

    attempt: int
    ready_ms: int
    announce: bool
    leased: bool = False


class Clock:
    """Goes on only when it is told to, and makes the ids of its time; so that a run can be repeated."""

    def __init__(self) -> None:
        self._begin_ms = int(time.time() * 1_000)
        self.reset()

    def reset(self) -> None:
        self.late_ms = 0
        self._ids = count()

    def now_ms(self) -> int:
        return self._begin_ms + self.late_ms

    def new_id(self, retention: int) -> bytes:
        number = next(self._ids) << 3 | retention
        return self.now_ms().to_bytes(6, "big") + b"\x70\x00\x80" + number.to_bytes(7, "big")


class World:
    """Management as it is, and execution as this test plays it."""

    wanted = rows_wanted = True

    def __init__(self, ledger: PostgresLedger, clock: Clock) -> None:
        self.ledger = ledger
        self.clock = clock
        self.now_ms = clock.now_ms
        self.shard: dict[TaskId, Held] = {}
        self.buried: set[TaskId] = set()
        self.recorded: dict[tuple[TaskId, int], Report] = {}
        self.unreported: set[tuple[TaskId, int]] = set()
        self.history: dict[TaskId, list[tuple[int, int]]] = defaultdict(list)
        self.made: dict[TaskId, task_pb2.Task] = {}
        self.requests: dict[str, tuple[task_pb2.Task, TaskId | None]] = {}
        self.leases: list[TaskId] = []
        self.problems: list[str] = []
        self.outbox = Outbox()
        self.lookout = Lookout(self, InOffice(), 5)
        self.chains = ChainReleaser(ledger, self.lookout, self.outbox.offer, self.committed, self.now_ms)
        self.finisher = Finisher(
            ledger,
            self,
            self.now_ms,
            rules=lambda row: Rules(retry_policy(row.traits), 2),
            chains=self.chains,
        )
        self.canceller = Canceller(ledger, self.finisher, self, self.committed, self.now_ms)
        self.deadlines = DeadlineKeeper(ledger, self.lookout, self.canceller, self.now_ms)
        self.creator = Creator(
            ledger,
            self.outbox.offer,
            self.now_ms,
            max_open_tasks=10**6,
            deadlines=self.deadlines.accepted,
            created=lambda _: None,
            replaced=self.canceller.follow_up_soon,
        )
        self.promoter = Promoter(ledger, self.lookout, self.outbox, self.now_ms)
        self.sweeper = Sweeper(
            ledger=ledger,
            lookout=self.lookout,
            comparer=self,
            outbox=self.outbox,
            canceller=self.canceller,
            now_ms=self.now_ms,
            age=0.0,
            rate=1e9,
        )

    async def start(self) -> None:
        await self.finisher.start()
        await self.creator.start()

    async def stop(self) -> None:
        await self.creator.stop()
        await self.finisher.stop()
        await self.canceller.stop()

    async def outlook(self, office: str, due_after_ms: int) -> Outlook:
        return (await self.ledger.outlook(office, due_after_ms))._replace(term=1)

    def settings(self, tenant: str, queue: str) -> QueueSettings:
        return UNSET

    def refusal(self, tenant: str, queue: str, settings: QueueSettings) -> Verdict | None:
        return None

    def committed(self, rows: Sequence[TaskRow]) -> None:
        """Every change that the ledger tells of has to be one that is allowed."""
        for row in rows:
            known = self.history[row.task_id]
            before = known[-1] if known else (1, int(self.first_state(row)))
            after = row.attempt, row.state
            same = after[0] == before[0] and (allowed(State(before[1]), State(after[1])) or after == before)
            again = after[0] == before[0] + 1 and before[1] not in TERMINAL and State(after[1]) in AGAIN
            if not (same or again) or (before[1] in TERMINAL and after == before):
                self.problems.append(f"{row.task_id.hex()} went from {before} to {after}")
            known.append(after)

    def over(self, ends: Sequence[Over]) -> None:
        raise AssertionError("somebody looks at all that changes")

    def committed_unseen(self, count: int) -> None:
        raise AssertionError("somebody always wants to know")

    def first_state(self, row: TaskRow) -> int:
        # What is replaced in the transaction that makes it is not known here yet.
        return self.made[row.task_id].state if row.task_id in self.made else State.PENDING

    async def compare(self, attempts: Sequence[OpenAttempt]) -> list[Compared]:
        return [
            Compared.PRESENT
            if item.task_id in self.shard or (item.task_id, item.attempt) in self.unreported
            else Compared.MISSING
            for item in attempts
        ]

    async def withdraw(self, attempts: Sequence[OpenAttempt]) -> list[Withdrawn]:
        return [self._withdrawn(item) for item in attempts]

    def _withdrawn(self, item: OpenAttempt) -> Withdrawn:
        if (item.task_id, item.attempt) in self.recorded:
            return Withdrawn.ENDED
        held = self.shard.get(item.task_id)
        if held and held.leased:
            return Withdrawn.LEASED
        self.buried.add(item.task_id)
        return Withdrawn.REMOVED if self.shard.pop(item.task_id, None) else Withdrawn.UNKNOWN

    async def settle(self) -> None:
        """Let everything come to rest that runs beside the callers."""
        while self.canceller._following:
            await asyncio.gather(*self.canceller._following)
        await self.lookout.look()
        while await self.deadlines.run_once() == 0.0:
            pass
        while await self.chains.run_once() == 0.0:
            pass
        await self.promoter.run_once()
        self.enqueue()

    def enqueue(self) -> None:
        while len(self.outbox):
            for item in self.outbox._frame():
                self._enqueue(item)

    def _enqueue(self, item: Sendable) -> None:
        held = self.shard.get(item.task_id)
        if item.task_id in self.buried or (held and held.attempt >= item.attempt):
            return
        if (item.task_id, item.attempt) in self.recorded:
            if not item.repeat:
                self.problems.append(f"{item.task_id.hex()} was dispatched anew after its end")
            return
        self.shard[item.task_id] = Held(item.attempt, item.ready_ms, item.announce_start)

    async def create(self, task: task_pb2.Task, request_id: str) -> TaskId | None:
        """Create a task; None when it was rejected."""
        given = task_pb2.Task()
        given.CopyFrom(task)
        checked = single(given, request_id, self)
        try:
            new, task_id = created(checked, await submit(self.creator, checked))
        except Conflict as error:
            if error.reason != Reason.UNIQUE_KEY_TAKEN:
                raise
            return None
        if new is not None:
            self.made[task_id] = task
            task.state = new.state  # type: ignore[assignment]
        return task_id

    async def lease(self, task_id: TaskId) -> None:
        held = self.shard[task_id]
        if held.announce:
            start = self.report_of(task_id, held.attempt, Outcome.UNSPECIFIED)
            (directive,) = await self.submit([start])
            if directive.kind != DirectiveKind.KEEP:
                self.apply(task_id, held.attempt, directive)
                return
        self.shard[task_id] = held._replace(leased=True)
        if task_id not in self.leases:
            self.leases.append(task_id)

    def report_of(self, task_id: TaskId, attempt: int, outcome: Outcome, **more: Any) -> Report:
        now_ms = self.now_ms()
        end_ms = 0 if outcome == Outcome.UNSPECIFIED else now_ms
        return Report(task_id, attempt, outcome, now_ms, end_ms, "w", "", "", **more)

    def record(self, task_id: TaskId, outcome: Outcome, **more: Any) -> tuple[TaskId, int]:
        attempt = self.shard[task_id].attempt
        key = task_id, attempt
        self.recorded[key] = self.report_of(task_id, attempt, outcome, **more)
        self.unreported.add(key)
        return key

    async def submit(self, reports: Sequence[Report]) -> list[Directive]:
        return await self.finisher.submit(reports)

    async def report(self, keys: Sequence[tuple[TaskId, int]]) -> None:
        directives = await self.submit([self.recorded[key] for key in keys])
        for (task_id, attempt), directive in zip(keys, directives, strict=True):
            self.unreported.discard((task_id, attempt))
            self.apply(task_id, attempt, directive)

    def apply(self, task_id: TaskId, attempt: int, directive: Directive) -> None:
        held = self.shard.get(task_id)
        if directive.kind in (DirectiveKind.DONE, DirectiveKind.GONE):
            self.shard.pop(task_id, None)
            self.buried.add(task_id)
        elif directive.kind == DirectiveKind.RUN:
            if task_id not in self.buried and (held is None or held.attempt < directive.attempt):
                self.shard[task_id] = Held(directive.attempt, directive.not_before_ms, announce=False)
                announced = self.made[task_id].max_attempts == 1
                self.shard[task_id] = self.shard[task_id]._replace(announce=announced)
        elif directive.kind == DirectiveKind.LATER and held and held.attempt == attempt:
            del self.shard[task_id]

    async def check(self) -> None:
        """What has to hold whenever everything has come to rest."""
        assert not self.problems, self.problems
        rows = await self.ledger.get_tasks(list(self.made), full=False) if self.made else {}
        assert rows.keys() == self.made.keys()
        ends = {task_id: [s for _, s in known if s in TERMINAL] for task_id, known in self.history.items()}
        for row in rows.values():
            assert ends.get(row.task_id, []) == ([row.state] if row.ended else [])
        open_rows = [row for row in rows.values() if not row.ended]
        self._check_chains(open_rows)
        self._check_keys(open_rows)
        for row in open_rows:
            assert self._kept(row, open_rows), f"nobody cares for {row}"

    def _kept(self, row: TaskRow, open_rows: Sequence[TaskRow]) -> bool:
        key = row.task_id, row.attempt
        held = self.shard.get(row.task_id)
        if row.state == State.WAITING:
            return any(
                other.ordering_key == row.ordering_key and other.task_id < row.task_id for other in open_rows
            )
        if key in self.unreported or (held is not None and held.attempt == row.attempt):
            return True
        far = row.ready_ms > self.now_ms() + DISPATCH_HORIZON_MS - 5_000
        return row.state in (State.SCHEDULED, State.RETRYING) and far

    def _check_chains(self, open_rows: Sequence[TaskRow]) -> None:
        going = Counter(row.ordering_key for row in open_rows if row.state != State.WAITING)
        assert all(count == 1 for key, count in going.items() if key)
        for key in {task.ordering_key for task in self.made.values()} - {""}:
            leased = [task_id for task_id in self.leases if self.made[task_id].ordering_key == key]
            assert leased == sorted(leased)

    def _check_keys(self, open_rows: Sequence[TaskRow]) -> None:
        holders = Counter(row.unique_key for row in open_rows if self._holds(row))
        assert all(count == 1 for key, count in holders.items() if key), holders

    def _holds(self, row: TaskRow) -> bool:
        if row.state == State.CANCELLING:
            return False
        not_started = row.attempt == 1 and row.state != State.RUNNING
        return self.made[row.task_id].unique_scope != task_pb2.UNIQUE_SCOPE_UNTIL_STARTED or not_started


KEYS = st.sampled_from(["", "", "a", "b"])


@st.composite
def tasks(draw: st.DrawFn) -> task_pb2.Task:
    task = task_pb2.Task(type="t", max_attempts=draw(st.integers(1, 3)), ordering_key=draw(KEYS))
    if unique_key := draw(KEYS):
        task.unique_key = unique_key
        task.unique_scope = draw(st.sampled_from([1, 2]))  # type: ignore[assignment]
        task.unique_policy = draw(st.sampled_from([1, 2, 3]))  # type: ignore[assignment]
    if delay := draw(st.sampled_from([0, 0, 0, 2, 1_000])):
        task.start_delay.FromSeconds(delay)
    if timeout := draw(st.sampled_from([0, 0, 0, 5, 600])):
        task.schedule_to_close_timeout.FromSeconds(timeout)
        task.schedule_to_start_timeout.FromSeconds(timeout)
    return task


class Operations(RuleBasedStateMachine):
    """What callers, workers and time do."""

    runner: asyncio.Runner
    clock: Clock
    pools: Database
    ledger: PostgresLedger

    def __init__(self) -> None:
        super().__init__()
        self.clock.reset()
        self.world = World(self.ledger, self.clock)
        self.run(self.world.start())

    def run(self, work: Awaitable[T]) -> T:
        async def step() -> T:
            done = await work
            await self.world.settle()
            return done

        return self.runner.run(step())

    def teardown(self) -> None:
        self.runner.run(self.world.stop())
        self.runner.run(self.pools.write(_clear))

    @rule(task=tasks(), named=st.booleans())
    def create(self, task: task_pb2.Task, named: bool) -> None:
        request_id = f"r-{len(self.world.requests):03}" if named else ""
        asked = task_pb2.Task()
        asked.CopyFrom(task)
        task_id = self.run(self.world.create(task, request_id))
        if named:
            self.world.requests[request_id] = asked, task_id

    @precondition(lambda self: self.world.requests)
    @rule(data=st.data())
    def repeat_a_request(self, data: st.DataObject) -> None:
        request_id = data.draw(st.sampled_from(sorted(self.world.requests)))
        asked, task_id = self.world.requests[request_id]
        known = len(self.world.made)
        assert self.run(self.world.create(asked, request_id)) == task_id
        assert len(self.world.made) == known

    def _ready(self) -> list[TaskId]:
        now_ms = self.world.now_ms()
        held = self.world.shard.items()
        return sorted(task_id for task_id, item in held if not item.leased and item.ready_ms <= now_ms)

    def _leased(self) -> list[TaskId]:
        free = {task_id for task_id, _ in self.world.unreported}
        return sorted(
            task_id for task_id, item in self.world.shard.items() if item.leased and task_id not in free
        )

    @precondition(lambda self: self._ready())
    @rule(data=st.data())
    def lease(self, data: st.DataObject) -> None:
        self.run(self.world.lease(data.draw(st.sampled_from(self._ready()))))

    @precondition(lambda self: self._leased())
    @rule(data=st.data())
    def say_that_it_runs(self, data: st.DataObject) -> None:
        task_id = data.draw(st.sampled_from(self._leased()))
        attempt = self.world.shard[task_id].attempt
        start = self.world.report_of(task_id, attempt, Outcome.UNSPECIFIED)
        (directive,) = self.run(self.world.submit([start]))
        assert directive.kind == DirectiveKind.KEEP

    @precondition(lambda self: self._leased())
    @rule(
        data=st.data(),
        outcome=st.sampled_from(ENDS),
        delay_ms=st.sampled_from([0, 1_000, 900_000]),
        final=st.booleans(),
        late=st.booleans(),
    )
    def end_an_attempt(
        self, data: st.DataObject, outcome: Outcome, delay_ms: int, final: bool, late: bool
    ) -> None:
        task_id = data.draw(st.sampled_from(self._leased()))
        key = self.world.record(task_id, outcome, retry_delay_ms=delay_ms, non_retryable=final)
        if not late:
            self.run(self.world.report([key]))

    @precondition(lambda self: self.world.recorded)
    @rule(data=st.data())
    def report_again(self, data: st.DataObject) -> None:
        keys = st.lists(st.sampled_from(sorted(self.world.recorded)), min_size=1, max_size=4, unique=True)
        self.run(self.world.report(data.draw(keys)))

    @precondition(lambda self: self.world.made)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        task_id = data.draw(st.sampled_from(sorted(self.world.made)))
        row = self.run(self.world.canceller.cancel(task_id, "no longer needed"))
        assert row.ended or row.state == State.CANCELLING

    @rule(seconds=st.sampled_from([1, 3, 10, 400]))
    def time_passes(self, seconds: int) -> None:
        self.clock.late_ms += seconds * 1_000
        self.run(asyncio.sleep(0))

    @rule()
    def lose_the_shard(self) -> None:
        """Whatever no worker has is gone; the sweeper finds it."""
        world = self.world
        world.shard = {task_id: item for task_id, item in world.shard.items() if item.leased}
        world.buried.clear()
        # The sweeper looks at what is older than the moment.
        self.clock.late_ms += 1
        self.run(self._sweep())

    async def _sweep(self) -> None:
        self.world.sweeper.compare_all()
        while await self.world.sweeper.run_once() is not None:
            pass

    @invariant()
    def hold_what_is_promised(self) -> None:
        self.runner.run(self.world.check())


async def _clear(connection: LedgerConnection, _: bool) -> None:
    # The keepers look at everything there is, so that nothing may be left of the run before.
    await connection.execute("TRUNCATE open_tasks, finished_tasks, claims, unique_keys, ordering_keys")


def test_whatever_happens_what_is_promised_holds(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("meshq.management.conversion.tasks.new_id_bytes", clock.new_id)
    with asyncio.Runner() as runner:
        pools = Database(database, writers=5, readers=2)
        runner.run(pools.start())
        Operations.runner, Operations.clock, Operations.pools = runner, clock, pools
        Operations.ledger = PostgresLedger(pools, clock.now_ms)
        try:
            run_state_machine_as_test(
                Operations,
                settings=settings(
                    max_examples=12,
                    phases=PHASES,
                    stateful_step_count=40,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(pools.stop())
