"""Starts that are announced, starts in time, and attempts that must not start again."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple

import pytest
from fixtures.execution import (
    DONE,
    KEEP,
    Cluster,
    Dispatcher,
    FrameWorker,
    Instance,
    attempts_of,
    cluster,
    completed,
    polled,
    traits,
    wait_until,
    withdrawn,
)

from meshq.execution.ring.errors import ShardUnavailable
from meshq.internal.v1 import ledger_service_pb2 as ledger_pb
from meshq.v1 import worker_service_pb2 as pb

STARTED, SUCCEEDED, LOST, TIMED_OUT = 0, 1, 4, 5
ACCEPTED = 1
SHARD_RECOVERING = 3
LEASED = 2


def task_of(item: pb.Assignment) -> bytes:
    return uuid.UUID(item.task.task_id).bytes


async def test_a_session_gets_an_announced_task_after_the_ledger_has_heard(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        worker = await system.worker(instance).connect()
        too_early: list[Any] = []

        def answer(report: ledger_pb.AttemptReport) -> ledger_pb.Directive:
            too_early.extend(item for item in worker.assigned.values() if task_of(item) == report.task_id)
            return ledger_pb.Directive(kind=KEEP)

        system.ledger.answer = answer
        ids = await system.dispatcher(instance).many(20, announce_start=True)
        assert system.ledger.reports == []
        await worker.credit(20)
        tokens = await worker.next_task(20)
        assert {report.task_id for report in system.ledger.reports} == set(ids)
        assert too_early == []
        assert all(report.worker_id == "w-1" and report.start_time_ms for report in system.ledger.reports)
        system.ledger.answer = system.ledger.default
        await worker.finish(*tokens)
        await wait_until(lambda: set(system.ledger.ended()) == set(ids))


async def test_an_announced_task_goes_to_nobody_else_when_it_is_not_acknowledged(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        dispatcher = system.dispatcher(instance)
        once = await dispatcher.one(announce_start=True)
        late, prompt = system.worker(instance, "late"), system.worker(instance, "prompt")
        late.auto_receive = prompt.auto_receive = False
        await late.connect(credit=1)
        (token,) = await late.next_task()
        # By the time that a plain delivery comes for the third time, that one would have come here too.
        await prompt.connect(credit=5)
        await dispatcher.one()
        await prompt.next_task(3)
        assert once not in {task_of(item) for item in prompt.assigned.values()}
        await late.finish(token)
        await wait_until(lambda: system.ledger.of(once, SUCCEEDED))


async def test_a_task_whose_delivery_could_not_be_noted_goes_back(
    database: str, shards: dict[str, str]
) -> None:
    async with _announced(database, shards, _Unheard) as one:
        (token,) = await one.worker.next_task()
        assert one.changed.failed
        assert task_of(one.worker.assigned[token]) == one.task_id
        assert len(one.system.ledger.of(one.task_id, STARTED)) == 2


class _Announced(NamedTuple):
    """See `_announced`."""

    system: Cluster
    instance: Instance
    changed: Any
    worker: FrameWorker
    dispatcher: Dispatcher
    task_id: bytes


@asynccontextmanager
async def _announced(
    database: str, shards: dict[str, str], change: Callable[[Instance], Any]
) -> AsyncIterator[_Announced]:
    """One worker of an instance with something changed, and one announced task for it."""
    async with cluster(database, shards) as system:
        instance = await system.start(delivery_timeout=20.0)
        changed = change(instance)
        worker = await system.worker(instance).connect(credit=1)
        dispatcher = system.dispatcher(instance)
        task_id = await dispatcher.one(announce_start=True)
        yield _Announced(system, instance, changed, worker, dispatcher, task_id)


class _Unheard:
    """Loses the shards' answer the first time that deliveries are noted."""

    def __init__(self, instance: Instance) -> None:
        self.failed = False
        for shard in instance.execution.shards.all():
            setattr(shard, "received", partial(self.received, shard.received))  # noqa: B010

    async def received(self, noted: Any, receipts: Any) -> Any:
        answer = await noted(receipts)
        if self.failed:
            return answer
        self.failed = True
        raise ShardUnavailable("the answer was lost")


async def test_plain_tasks_do_not_wait_for_announced_ones(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        system.ledger.available = False
        dispatcher = system.dispatcher(instance)
        await dispatcher.many(5, announce_start=True)
        plain = await dispatcher.many(5)
        worker = await system.worker(instance).connect(credit=10)
        await worker.next_task(5)
        assert {task_of(item) for item in worker.assigned.values()} == set(plain)


async def test_a_poll_gets_an_announced_task_after_the_ledger_has_heard(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        task_id = await system.dispatcher(instance).one(announce_start=True)
        (item,) = await polled(instance, request_id="r")
        assert [report.task_id for report in system.ledger.reports] == [task_id]
        # The same poll again says it again: the first call may have died before.
        (again,) = await polled(instance, request_id="r")
        assert again.lease_token == item.lease_token
        assert len(system.ledger.of(task_id, STARTED)) == 2


async def test_what_may_not_start_is_dropped(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        system.ledger.answer = lambda _: ledger_pb.Directive(kind=DONE)
        worker = await system.worker(instance).connect(credit=1)
        dispatcher = system.dispatcher(instance)
        task_id = await dispatcher.one(announce_start=True)
        await wait_until(lambda: system.ledger.of(task_id))
        system.ledger.answer = system.ledger.default
        # Its credit is given back: the next task comes.
        other = await dispatcher.one(announce_start=True)
        (token,) = await worker.next_task()
        assert task_of(worker.assigned[token]) == other
        assert await polled(instance) == []


async def test_without_the_ledger_announced_tasks_wait_on_their_shards(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        system.ledger.available = False
        worker = await system.worker(instance).connect(credit=1)
        task_id = await system.dispatcher(instance).one(announce_start=True)
        assert await polled(instance, 1.5, worker_id="p") == []
        assert worker.assigned == {}
        system.ledger.available = True
        (token,) = await worker.next_task()
        assert worker.assigned[token].attempt == 1
        assert len({report.attempt for report in system.ledger.of(task_id)}) == 1


async def test_an_announced_task_survives_the_instance_that_announced_it(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(), await system.start()
        announcing = asyncio.Event()

        async def never(_starts: Any, _seconds: float) -> Any:
            announcing.set()
            await asyncio.sleep(60)

        setattr(first.execution.announcer, "announce", never)  # noqa: B010
        await system.worker(first, "doomed").connect(credit=1)
        task_id = await system.dispatcher(second).one(announce_start=True)
        await announcing.wait()
        await first.crash()
        (item,) = await polled(second, 15)
        assert (task_of(item), item.attempt) == (task_id, 1)
        assert len(system.ledger.of(task_id, STARTED)) == 1


class _Slow:
    """Lets starts wait until they may be announced."""

    def __init__(self, instance: Instance) -> None:
        self.asked, self.may_go = asyncio.Event(), asyncio.Event()
        self._announce = instance.execution.announcer.announce
        setattr(instance.execution.announcer, "announce", self.announce)  # noqa: B010

    async def announce(self, starts: Any, seconds: float) -> Any:
        self.asked.set()
        await self.may_go.wait()
        return await self._announce(starts, seconds)


async def test_a_cancellation_reaches_a_task_that_is_still_being_prepared(
    database: str, shards: dict[str, str]
) -> None:
    async with _announced(database, shards, _Slow) as (_, instance, slow, worker, _, task_id):
        await slow.asked.wait()
        assert await withdrawn(instance, task_id) == [LEASED]
        (session,) = instance.execution.sessions.all()
        await wait_until(lambda: session._early)
        slow.may_go.set()
        (token,) = await worker.next_task()
        cancel = await wait_until(lambda: worker.cancels.get(token))
        assert cancel.reason == "not wanted"
        assert not session._early


async def test_a_task_that_is_lost_while_it_is_prepared_is_not_handed_out(
    database: str, shards: dict[str, str]
) -> None:
    async with _announced(database, shards, _Slow) as (_, instance, slow, worker, dispatcher, task_id):
        await slow.asked.wait()
        # The ledger knows better, and has gone on to the next attempt.
        await dispatcher.one(task_id=task_id, attempt=2, announce_start=True)
        (session,) = instance.execution.sessions.all()
        await wait_until(lambda: session._early)
        slow.may_go.set()
        (token,) = await worker.next_task()
        assert worker.assigned[token].attempt == 2
        # Its credit has come back with the one that was lost.
        assert session.room == 0
        await worker.finish(token)
        await wait_until(lambda: token in worker.acks)
        assert len(worker.assigned) == 1


async def test_what_was_started_and_is_nowhere_is_lost_and_not_started_again(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        system.ledger.answer = lambda report: ledger_pb.Directive(kind=DONE if report.outcome else KEEP)
        dispatcher = system.dispatcher(instance)
        held = await dispatcher.one(announce_start=True)
        (item,) = await polled(instance)
        gone, ended = dispatcher.item().task_id, await dispatcher.one()
        (other,) = await polled(instance)
        done = pb.TaskResult(lease_token=other.lease_token, success=pb.Success())
        assert await completed(instance, done) == [ACCEPTED]
        await wait_until(lambda: system.ledger.of(ended, SUCCEEDED))
        started: dict[str, Any] = {"repeat": True, "started": True, "announce_start": True}
        items = [dispatcher.item(task_id=task_id, **started) for task_id in (held, gone, ended)]
        assert await dispatcher.send(*items) == {}
        (report,) = await wait_until(lambda: system.ledger.of(gone, LOST))
        assert report.error_type == "LOST"
        assert [attempt.outcome for attempt in await attempts_of(instance, gone)] == [LOST]
        assert await polled(instance) == []
        assert system.ledger.of(held, LOST) == []
        await wait_until(lambda: len(system.ledger.of(ended, SUCCEEDED)) > 1)
        assert await completed(
            instance, pb.TaskResult(lease_token=item.lease_token, success=pb.Success())
        ) == [ACCEPTED]


async def test_what_was_started_is_not_lost_while_a_shard_is_silent(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        dispatcher = system.dispatcher(instance)
        shard = instance.execution.shards.all()[0]
        keeper = instance.execution.shards._keepers[shard.name]
        await keeper._repeater.stop()
        shard.detach()
        item = dispatcher.item(repeat=True, started=True)
        assert await dispatcher.send(item) == {0: SHARD_RECOVERING}
        await keeper.start()
        await instance.open()
        assert await dispatcher.send(item) == {}
        await wait_until(lambda: system.ledger.of(bytes(item.task_id), LOST))


@pytest.mark.parametrize("delayed", [False, True])
async def test_a_task_that_nobody_takes_in_time_has_timed_out(
    database: str, shards: dict[str, str], delayed: bool
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        system.ledger.answer = lambda _: ledger_pb.Directive(kind=DONE)
        now = int(time.time() * 1000)
        dispatcher = system.dispatcher(instance)
        ready = now + 300 if delayed else now
        task_id = await dispatcher.one(start_by_time_ms=now + 600, ready_time_ms=ready)
        (report,) = await wait_until(lambda: system.ledger.of(task_id, TIMED_OUT))
        assert report.error_type == "SCHEDULE_TO_START_TIMEOUT"
        assert report.end_time_ms >= report.start_time_ms >= now + 600
        assert await polled(instance) == []
        await wait_until(lambda: nothing_held(instance))


async def test_a_task_that_comes_too_late_is_not_given_to_a_waiting_worker(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        system.ledger.answer = lambda _: ledger_pb.Directive(kind=DONE)
        worker = await system.worker(instance).connect(credit=10)
        past = int(time.time() * 1000) - 1
        late = await system.dispatcher(instance).many(5, start_by_time_ms=past)
        await wait_until(lambda: all(system.ledger.of(task_id, TIMED_OUT) for task_id in late))
        await wait_until(lambda: nothing_held(instance))
        assert not worker.assigned
        assert {report.error_type for report in system.ledger.reports} == {"SCHEDULE_TO_START_TIMEOUT"}


async def nothing_held(instance: Instance) -> bool:
    depths = [await shard.totals() for shard in instance.execution.shards.all()]
    return all(depth.ready + depth.delayed + depth.leased == 0 for depth in depths)


async def test_a_task_that_was_taken_in_time_may_take_longer(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        now = int(time.time() * 1000)
        dispatcher = system.dispatcher(instance)
        task_id = await dispatcher.one(start_by_time_ms=now + 2_000, traits=traits(rate_units=2))
        (item,) = await polled(instance)
        await wait_until(lambda: time.time() * 1000 > now + 2_800)
        result = pb.TaskResult(lease_token=item.lease_token, success=pb.Success())
        assert await completed(instance, result) == [ACCEPTED]
        await wait_until(lambda: system.ledger.of(task_id, SUCCEEDED))
        assert system.ledger.of(task_id, TIMED_OUT) == []
