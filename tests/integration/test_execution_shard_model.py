"""Random operations on a real shard with the real scripts, beside a plain model of what a queue is.

The model knows nothing of lanes, parked sets or counters: a task is somewhere, and leases are what limits
count. After each step the shard's figures must be the model's, and each lease call must have been allowed to
take what it took, in that order. At the end everything is worked off, and the shard must be empty.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from fixtures.execution import opened_shard
from fixtures.shards import done, everything, item, leases, now_ms
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from meshq.execution.model import Lease, QueueItem, ShardQueueConfig, Traits
from meshq.execution.ring.connection import open_connection
from meshq.execution.ring.shard import Held, Owner, Shard

SCOPE = "default/q"
KINDS = ("t", "u")
CLASSES = [f"{SCOPE}/{kind}" for kind in KINDS]
SESSIONS = ("e-1/a", "e-1/b")
HOUR = 3_600_000
BASE = now_ms() - HOUR
BOOST = 60_000

NEW = st.tuples(
    st.sampled_from(["t", *KINDS]),
    st.sampled_from(["", "", "x"]),  # fairness key
    st.sampled_from(["", "k", "k", "l"]),  # limit key
    st.integers(0, 3),  # priority
    st.integers(0, 5),  # ready time
    st.sampled_from([0, 0, 0, HOUR]),  # delay
    st.sampled_from([0, 0, 0, HOUR, 1]),  # time to close
)


@dataclass
class Known:
    """A task as the model sees it; its place is `ready`, `delayed`, `leased` or `over` (to be settled)."""

    item: QueueItem
    place: str
    attempt: int = 1
    lease: Lease | None = None
    session: str = ""
    received: bool = False
    cancelled: bool = False
    deferred: bool = False
    handed: bool = False

    @property
    def key(self) -> str:
        """Its limit key."""
        return self.item.traits.limit_key if self.item.traits else ""

    @property
    def order(self) -> tuple[int, bytes]:
        """Where it stands in its lane."""
        return self.item.ready_ms - self.item.priority * BOOST, self.item.task_id


@dataclass
class Limits:
    """The configuration that counts."""

    version: int = 0
    paused: bool = False
    most: int = 0
    most_per_key: int = 0


class QueueMachine(RuleBasedStateMachine):
    """See the module."""

    address = ""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.tasks: dict[bytes, Known] = {}
        self.ended: list[Known] = []
        self.limits = Limits()
        self.run(self._open())
        self._configure(paused=False, most=0, per_key=1)

    def run(self, step: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run(step)

    async def _open(self) -> None:
        connection = await open_connection(self.address, "wipe")
        await connection.call("FLUSHALL")
        connection.close()
        self.context = opened_shard(self.address)
        self.shard: Shard = await self.context.__aenter__()
        for session in SESSIONS:
            await self._greet(session)

    async def _greet(self, session: str) -> None:
        await self.shard.greet([(session, f"default/{session[-1]}", b"k")], HOUR)

    def teardown(self) -> None:
        try:
            self._work_off()
        finally:
            self.run(self.context.__aexit__(None, None, None))
            self.loop.close()

    # -- what the model says --------------------------------------------------------------------------------

    def at(self, *places: str) -> list[Known]:
        return [known for known in self.tasks.values() if known.place in places]

    def held(self, key: str | None = None) -> list[Known]:
        return [known for known in self.at("leased", "over") if key is None or known.key == key]

    def one(self, number: int, *places: str) -> Known:
        found = sorted(self.at(*places), key=lambda known: known.item.task_id)
        return found[number % len(found)]

    def room(self, key: str) -> bool:
        limits = self.limits
        if limits.paused or (limits.most and len(self.held()) >= limits.most):
            return False
        return not key or not limits.most_per_key or len(self.held(key)) < limits.most_per_key

    def overtaken(self, taken: Known) -> list[Known]:
        """Tasks of the same lane that had to come before: without a limit key, or with the same one."""
        return [
            known
            for known in self.at("ready")
            if known.item.lane == taken.item.lane
            and known.order < taken.order
            and known.key in {"", taken.key}
        ]

    # -- queueing -------------------------------------------------------------------------------------------

    @rule(news=st.lists(NEW, min_size=1, max_size=6))
    def enqueue(self, news: list[tuple[str, str, str, int, int, int, int]]) -> None:
        items = []
        for kind, fairness, key, priority, ready, delay, close in news:
            traits = Traits(key, start_to_close_ms=close) if key or close else None
            ready_ms = now_ms() + delay if delay else BASE + ready
            lane = f"{SCOPE}/{kind}/{fairness}"
            items.append(item(lane=lane, priority=priority, ready_ms=ready_ms, traits=traits))
        # Some come twice.
        assert not self.run(self.shard.enqueue([*items, items[0]]))
        for found in items:
            self.tasks[found.task_id] = Known(found, "delayed" if found.ready_ms > now_ms() else "ready")

    @precondition(lambda self: self.ended)
    @rule(number=st.integers(0, 100))
    def enqueue_again_what_has_ended(self, number: int) -> None:
        known = self.ended[number % len(self.ended)]
        self.run(self.shard.enqueue([known.item._replace(attempt=known.attempt)]))

    @precondition(lambda self: self.tasks)
    @rule(number=st.integers(0, 100), delay=st.sampled_from([0, HOUR]))
    def enqueue_a_later_attempt(self, number: int, delay: int) -> None:
        known = self.one(number, "ready", "delayed", "leased", "over")
        ready_ms = now_ms() + HOUR if delay else BASE
        later = known.item._replace(attempt=known.attempt + 1, ready_ms=ready_ms)
        self.run(self.shard.enqueue([later]))
        self.tasks[later.task_id] = Known(later, "delayed" if delay else "ready", later.attempt)

    # -- leasing --------------------------------------------------------------------------------------------

    @rule(
        session=st.sampled_from(SESSIONS),
        count=st.integers(1, 8),
        kinds=st.sampled_from([CLASSES, CLASSES[:1]]),
    )
    def lease(self, session: str, count: int, kinds: list[str]) -> None:
        self._take(session, count, kinds)

    @rule(count=st.integers(1, 3))
    def poll(self, count: int) -> None:
        self._take("", count, CLASSES)

    def _take(self, session: str, count: int, classes: list[str]) -> int:
        taken = self.run(
            self.shard.lease(
                [Owner(session, "w", count)], classes, wanted=count, wanted_bytes=1 << 20, lease_ms=HOUR,
                session_ms=HOUR if session else 0,
            )
        )  # fmt: skip
        held = leases(self.shard, taken)
        for found in held:
            known = self.tasks[found.task_id]
            assert known.place == "ready", f"{known} was leased"
            assert known.attempt == found.attempt
            assert self.room(known.key), f"no room for {known}"
            assert not self.overtaken(known)
            known.place, known.lease, known.session = "leased", found, session
            known.received = not session
        if len(held) < count:
            wanted = [known for known in self.at("ready") if known.item.lane.rpartition("/")[0] in classes]
            assert not [known for known in wanted if self.room(known.key)], (
                "something was left although there is room"
            )
        return len(held)

    @precondition(lambda self: self.at("leased"))
    @rule(number=st.integers(0, 100))
    def received(self, number: int) -> None:
        known = self.one(number, "leased")
        assert known.lease
        lost = self.run(self.shard.received([(known.lease, known.session)]))
        assert lost == ([] if known.session or known.received else [0])
        known.received = True

    @precondition(lambda self: self.at("leased"))
    @rule(number=st.integers(0, 100))
    def release(self, number: int) -> None:
        known = self.one(number, "leased")
        assert self.run(self.shard.release([self._lease_of(known)])) == [True]
        self._went_back(known)

    def _went_back(self, known: Known, *, handed: bool = False) -> None:
        if known.cancelled:
            self._end(known)
        else:
            self.tasks[known.item.task_id] = Known(
                known.item, "ready", known.attempt, handed=known.handed or handed
            )

    def _lease_of(self, known: Known) -> Lease:
        assert known.lease
        return known.lease

    def _end(self, known: Known) -> None:
        del self.tasks[known.item.task_id]
        self.ended.append(known)

    # -- ending ---------------------------------------------------------------------------------------------

    @precondition(lambda self: self.held())
    @rule(number=st.integers(0, 100), kind=st.sampled_from(["done", "done", "gone", "later"]))
    def finish(self, number: int, kind: str) -> None:
        known = self.one(number, "leased", "over")
        self.run(self.shard.apply([done(self._lease_of(known), kind)]))
        self._end(known)

    @precondition(lambda self: self.held())
    @rule(number=st.integers(0, 100), delay=st.sampled_from([0, HOUR]), twice=st.booleans())
    def run_again(self, number: int, delay: int, twice: bool) -> None:
        known = self.one(number, "leased", "over")
        ready_ms = now_ms() + HOUR if delay else BASE + 3
        again = done(self._lease_of(known), "run", next_attempt=known.attempt + 1, not_before_ms=ready_ms)
        self.run(self.shard.apply([again] * (1 + twice)))
        later = known.item._replace(attempt=known.attempt + 1, ready_ms=ready_ms)
        self.tasks[later.task_id] = Known(later, "delayed" if delay else "ready", later.attempt)

    @precondition(lambda self: self.tasks)
    @rule(number=st.integers(0, 100), mode=st.sampled_from(["cancel", "recall"]))
    def withdraw(self, number: int, mode: str) -> None:
        places = ("ready",) if number % 2 and self.at("ready") else ("ready", "delayed", "leased", "over")
        known = self.one(number // 2, *places)
        (state,) = self.run(self.shard.withdraw([(known.item.task_id, known.attempt, "why", mode)], HOUR))
        if known.place in {"ready", "delayed"}:
            assert state == (4 if known.handed and mode == "cancel" else 1)
            self._end(known)
        else:
            assert state == 2
            known.cancelled = known.cancelled or mode == "cancel"

    @precondition(lambda self: self.at("ready"))
    @rule(key=st.sampled_from(["", "k", "k", "l"]))
    def withdraw_the_next_of_a_key(self, key: str) -> None:
        found = [known for known in self.at("ready") if known.key == key]
        if found:
            known = min(found, key=lambda known: known.order)
            items = [(known.item.task_id, known.attempt, "why", "cancel")]
            assert self.run(self.shard.withdraw(items)) == [4 if known.handed else 1]
            self._end(known)

    @precondition(lambda self: self.at("leased"))
    @rule(number=st.integers(0, 100))
    def defer(self, number: int) -> None:
        known = self.one(number, "leased")
        assert self.run(self.shard.defer(self._lease_of(known), HOUR))
        known.session, known.received, known.deferred = "", True, True

    @precondition(lambda self: self.at("leased"))
    @rule(number=st.integers(0, 100), session=st.sampled_from(SESSIONS))
    def adopt(self, number: int, session: str) -> None:
        known = self.one(number, "leased")
        lease = self._lease_of(known)
        wrong = lease._replace(number=lease.number + 1_000)
        held = [Held(found, session, "w", known.item.lane) for found in (wrong, lease)]
        assert self.run(self.shard.adopt(held, HOUR)) == [False, True]
        known.session, known.received, known.deferred = session, True, False

    @rule()
    def a_lease_of_an_older_epoch_is_adopted(self) -> None:
        found = item(lane=f"{CLASSES[0]}/")
        lease = Lease(found.task_id, 1, 1, 1, self.shard.name, "default", now_ms())
        held = Held(lease, SESSIONS[0], "w", found.lane, b"0 1 1 0 0 0 k")
        assert self.run(self.shard.adopt([held], HOUR)) == [True]
        # It has no specification here, so it cannot go back.
        known = Known(found._replace(traits=Traits("k")), "leased", 1, lease, SESSIONS[0], received=True)
        self.tasks[found.task_id] = known
        self.run(self.shard.apply([done(lease)]))
        self._end(known)

    @rule(session=st.sampled_from(SESSIONS))
    def a_session_ends(self, session: str) -> None:
        self.run(self.shard.leave([session]))
        self._expire()
        assert not [known for known in self.at("leased") if known.session == session]
        self.run(self._greet(session))

    @rule()
    def expire(self) -> None:
        self._expire()

    def _expire(self) -> None:
        """Do all that time asks for; what was not acknowledged goes back."""
        due: float | None = 0.0
        while due is not None and due < 1:
            due, over = self.run(self.shard.expire(HOUR))
            for found in over:
                known = self.tasks[found.lease.task_id]
                assert known.lease == found.lease
                if found.returning:
                    assert not known.received
                    self.run(self.shard.take_back([found.lease]))
                    self._went_back(known, handed=True)
                else:
                    assert found.kind == "start_to_close" or known.received
                    known.place = "over"

    # -- configuring ----------------------------------------------------------------------------------------

    @rule(
        paused=st.sampled_from([False, False, False, False, True]),
        most=st.sampled_from([0, 0, 0, 2, 4]),
        per_key=st.integers(0, 3),
    )
    def configure(self, paused: bool, most: int, per_key: int) -> None:
        self._configure(paused=paused, most=most, per_key=per_key)

    def _configure(self, *, paused: bool, most: int, per_key: int) -> None:
        version = self.limits.version + 1
        config = ShardQueueConfig(SCOPE, version, paused, most, per_key)
        older = config._replace(version=version - 1, paused=not paused)
        assert self.run(self.shard.configure([config, older])) == [len(self.held())] * 2
        self.limits = Limits(version, paused, most, per_key)
        self._expire()

    # -- what holds always ----------------------------------------------------------------------------------

    @invariant()
    def figures_are_those_of_the_model(self) -> None:
        (depth,) = self.run(self.shard.describe([SCOPE]))
        totals = self.run(self.shard.totals())
        expected = (len(self.at("ready")), len(self.at("delayed")), len(self.held()))
        assert depth[:3] == totals[:3] == expected

    @invariant()
    def keys_count_their_leases(self) -> None:
        assert self.shard._connection
        counted = self.run(self._call("HGETALL", f"mq:running:{SCOPE}"))
        expected = {key.encode(): str(len(self.held(key))).encode() for key in "kl" if self.held(key)}
        assert counted == expected

    @invariant()
    def each_task_is_where_the_model_has_it(self) -> None:
        found = self.run(self.shard.explain(list(self.tasks))) if self.tasks else []
        places = [{"parked": "ready", "leased": "leased"}.get(known.state, known.state) for known in found]
        expected = ["leased" if known.place == "over" else known.place for known in self.tasks.values()]
        assert places == expected

    async def _call(self, *command: str) -> Any:
        assert self.shard._connection
        return await self.shard._connection.call(*command)

    # -- the end --------------------------------------------------------------------------------------------

    def _work_off(self) -> None:
        self._configure(paused=False, most=3, per_key=1)
        for known in self.at("delayed"):
            assert self.run(self.shard.withdraw([(known.item.task_id, known.attempt, "", "cancel")])) == [1]
            self._end(known)
        while self.tasks:
            for known in self.held():
                self.run(self.shard.apply([done(self._lease_of(known))]))
                self._end(known)
            assert self._take(SESSIONS[0], 10, CLASSES) or not self.at("ready")
        for session in SESSIONS:
            self.run(self.shard.leave([session]))
        self._expire()
        left = {key.decode() for key in self.run(everything(self.shard))}
        left = {key for key in left if not key.startswith(("mq:tombstones:", "mq:waiting:"))}
        assert left <= {"mq:meta", "mq:totals", f"mq:queue:{SCOPE}", f"mq:conf:{SCOPE}"}


def test_a_shard_does_what_the_model_says(shards: dict[str, str]) -> None:
    QueueMachine.address = shards["shard-1"]
    run_state_machine_as_test(
        QueueMachine,
        settings=settings(
            max_examples=40,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
