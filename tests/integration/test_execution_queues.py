"""Settings of queues over all shards and instances: pauses, limits, moves, explanations, weights."""

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from fixtures.execution import (
    DONE,
    KEEP,
    RUN,
    Cluster,
    Instance,
    cluster,
    completed,
    polled,
    seconds,
    traits,
    wait_until,
    withdrawn,
)
from google.protobuf.struct_pb2 import Value

from meshq.contract.status import from_rpc_error
from meshq.execution.queues import homes
from meshq.execution.ring.shard import ShardState
from meshq.internal.v1 import dispatch_service_pb2 as pb
from meshq.internal.v1 import ledger_service_pb2 as ledger_pb
from meshq.v1 import worker_service_pb2 as worker_pb
from meshq.v1.task_pb2 import Task

ACCEPTED = 1
IN_LINE, NOT_DUE, PAUSED, NO_WORKER, QUEUE_LIMIT, KEY_BUSY, RATE_LIMIT, DISPATCHING = 1, 2, 4, 5, 6, 7, 8, 10


def settle(report: ledger_pb.AttemptReport) -> ledger_pb.Directive:
    """Ends what has ended, but runs again what was lost."""
    if report.outcome == 4:
        now = int(time.time() * 1000)
        return ledger_pb.Directive(kind=RUN, attempt=report.attempt + 1, not_before_ms=now)
    return ledger_pb.Directive(kind=DONE if report.outcome else KEEP)


async def configured(instance: Instance, version: int, queue: str = "default", **fields: Any) -> bool:
    config = pb.QueueConfig(tenant="default", queue=queue, version=version, **fields)
    answer = await instance.dispatch.ConfigureQueues(pb.ConfigureQueuesRequest(queues=[config]))
    return answer.complete


async def depth(instance: Instance, queue: str = "default") -> pb.QueueDepth:
    request = pb.DescribeQueuesRequest(tenant="default", queues=[queue])
    return (await instance.dispatch.DescribeQueues(request)).depths[0]


async def explained(instance: Instance, *task_ids: bytes) -> list[pb.Explanation]:
    tasks = [
        pb.ExplainedTask(task_id=task_id, tenant="default", queue="default", type="t") for task_id in task_ids
    ]
    return list((await instance.dispatch.ExplainTasks(pb.ExplainTasksRequest(tasks=tasks))).explanations)


async def where(instance: Instance, queue: str = "default") -> dict[str, int]:
    """How many ready tasks of a queue each shard has."""
    found = {}
    for shard in instance.execution.shards.all():
        (there,) = await shard.describe([f"default/{queue}"])
        found[shard.name] = there.ready
    return found


def home_of(instance: Instance, queue: str = "default") -> str:
    shard = instance.execution.shards.owner(f"default/{queue}".encode())
    assert shard
    return shard.name


async def finished(instance: Instance, items: Sequence[Any]) -> None:
    if not items:
        return
    results = [
        worker_pb.TaskResult(lease_token=item.lease_token, success=worker_pb.Success()) for item in items
    ]
    assert set(await completed(instance, *results)) <= {ACCEPTED}


def task_of(item: Any) -> bytes:
    return uuid.UUID(item.task.task_id).bytes


async def test_a_paused_queue_is_paused_on_all_shards_and_goes_on_at_once(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(), await system.start()
        await system.dispatcher(first).many(12)
        other = await system.dispatcher(first).one(queue="other")
        assert await configured(first, 1, paused=True)
        assert await polled(second) == []
        (item,) = await polled(second, queues=["default", "other"])
        assert task_of(item) == other
        waiting = asyncio.create_task(polled(second, 20, max_tasks=100))
        await wait_until(lambda: second.execution.polls._waiting)
        # An older setting changes nothing.
        assert await configured(second, 0, paused=False)
        begun = time.monotonic()
        assert await configured(second, 2)
        assert await waiting
        assert time.monotonic() - begun < 1.0


async def test_instances_and_shards_that_come_later_know_the_settings(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        first = await system.start()
        assert await configured(first, 7, paused=True, max_running=2)
        second = await system.start()
        known = second.execution.queues.get("default/default")
        assert known
        assert (known.version, known.paused, known.max_running) == (7, True, 2)
        before = {shard.name: shard.epoch for shard in first.execution.shards.all()}
        for shard in first.execution.shards.all():
            assert shard._connection
            await shard._connection.call("FLUSHALL")
        for instance in (first, second):
            await wait_until(lambda: reopened(instance, before), seconds=30)  # noqa: B023
        await system.dispatcher(second).many(10)
        assert await polled(first) == []
        assert await configured(first, 8, max_running=2)
        assert len(await polled(first, 5)) == 2


def reopened(instance: Instance, before: dict[str, int]) -> bool:
    return all(
        shard.state is ShardState.OPEN and shard.epoch != before[shard.name]
        for shard in instance.execution.shards.all()
    )


async def test_a_limit_holds_over_all_workers_and_instances(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(), await system.start()
        system.ledger.answer = settle
        assert await configured(first, 1, max_running=3)
        workers = [
            await system.worker(instance, f"w-{index}").connect(credit=20)
            for index, instance in enumerate((first, second, second))
        ]
        ids = await system.dispatcher(second).many(60)
        assert (await where(first))[home_of(first)] + (await depth(first)).leased == 60
        running: set[bytes] = set()
        done: set[bytes] = set()

        async def step() -> bool:
            for worker in workers:
                mine = set(worker.assigned) - done
                running.update(mine)
                assert len(running) <= 3
                for token in mine & running:
                    await worker.finish(token)
                    await wait_until(lambda: token in worker.acks)  # noqa: B023
                    running.discard(token)
                    done.add(token)
            assert (await depth(first)).leased <= 3
            return len(system.ledger.ended()) == len(ids)

        await wait_until(step, seconds=40)
        assert len(done) == 60


async def test_tasks_of_a_queue_that_gets_a_limit_come_together(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(), await system.start()
        system.ledger.answer = settle
        dispatcher = system.dispatcher(first)
        await dispatcher.many(60)
        early = await polled(first, max_tasks=9)
        assert await configured(second, 1, max_running=10)
        # Nine run wherever they were leased, so there is room for one.
        (one,) = await polled(second, 10, max_tasks=30)
        assert await polled(first, 0.3, max_tasks=30) == []
        home = home_of(first)
        await wait_until(lambda: only_at(first, home, 50), seconds=20)
        await finished(first, early)
        late: list[Any] = []

        async def more() -> bool:
            late.extend(await polled(second, 0.2, max_tasks=30))
            assert (await depth(first)).leased <= 10
            return len(late) == 9

        await wait_until(more, seconds=20)
        await dispatcher.many(10)
        await wait_until(lambda: only_at(first, home, 51), seconds=20)
        # Without the limit they may be anywhere again.
        assert await configured(first, 2)
        assert len(await polled(first, 5, max_tasks=100)) == 51
        await dispatcher.many(30)
        assert len([count for count in (await where(first)).values() if count]) > 1
        await finished(first, [*late, one])


async def only_at(instance: Instance, home: str, count: int) -> bool:
    return {name: ready for name, ready in (await where(instance)).items() if ready} == {home: count}


async def test_an_instance_that_has_missed_a_change_finds_out(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(), await system.start()
        assert await configured(first, 1, max_running=100)
        assert second.execution.queues.wide() == []
        await system.dispatcher(second).many(30)
        assert second.execution.queues.wide() == ["default/default"]
        assert await only_at(first, home_of(first), 30)


async def test_limits_per_key_hold_and_other_keys_go_by(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(), await system.start()
        system.ledger.answer = settle
        assert await configured(first, 1, max_running_per_key=2)
        dispatcher = system.dispatcher(second)
        for key in ("a", "b"):
            await dispatcher.many(10, traits=traits(limit_key=key))
        await dispatcher.many(5)
        got = [*await polled(first, max_tasks=100), *await polled(second, max_tasks=100)]
        assert len(got) == 9
        # What waits for its key is still counted as ready.
        figures = await depth(first)
        assert (figures.ready, figures.leased) == (16, 9)
        await finished(first, got)
        rest: list[Any] = []

        async def all_done() -> bool:
            items = await polled(second, 0.2, max_tasks=100)
            assert len(items) <= 4
            rest.extend(items)
            await finished(second, items)
            return len(rest) == 16

        await wait_until(all_done, seconds=30)


KEYS = "abcdefgh"


async def of_keys(instance: Instance, wait: float = 0) -> Counter[str]:
    """How many tasks of each key a poll gets."""
    return Counter(item.task.labels["key"] for item in await polled(instance, wait, max_tasks=100))


async def keyed(system: Cluster, instance: Instance, count: int, keys: str = KEYS) -> None:
    dispatcher = system.dispatcher(instance)
    for key in keys:
        items = [dispatcher.item(traits=traits(limit_key=key)) for _ in range(count)]
        for item in items:
            item.task = Task(
                task_id=str(uuid.UUID(bytes=item.task_id)), labels={"key": key}
            ).SerializeToString()
        assert await dispatcher.send(*items) == {}


async def ended(system: Cluster, instance: Instance, items: Sequence[Any]) -> None:
    """Finish tasks and wait until the shards know."""
    before = (await depth(instance)).leased
    await finished(instance, items)

    async def known() -> bool:
        return (await depth(instance)).leased == before - len(items)

    await wait_until(known)


async def test_limits_per_key_hold_while_a_queue_gets_limits_as_a_whole(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(), await system.start()
        system.ledger.answer = settle
        assert await configured(first, 1, max_running_per_key=2)
        await keyed(system, first, 6)
        early = await polled(first, max_tasks=100)
        assert len(early) == 16
        assert await configured(second, 2, max_running=100, max_running_per_key=2)
        assert await of_keys(first, 0.3) == {}
        await wait_until(lambda: only_at(first, home_of(first), 32), seconds=20)
        await keyed(system, second, 1)
        assert await of_keys(second, 0.3) == {}
        # What ends on another shard makes room at home.
        (mine,) = [item for item in early if item.task.labels["key"] == "a"][:1]
        await ended(system, first, [mine])
        assert await of_keys(second, 10) == {"a": 1}
        assert await of_keys(second, 0.3) == {}
        await ended(system, first, [item for item in early if item is not mine])
        got: Counter[str] = Counter()

        async def all_again() -> bool:
            got.update(await of_keys(second, 0.2))
            return got.total() == 15

        await wait_until(all_again, seconds=20)
        assert got == {"a": 1} | dict.fromkeys(KEYS[1:], 2)


async def test_limits_per_key_hold_when_a_queue_loses_its_limits_as_a_whole(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(), await system.start()
        system.ledger.answer = settle
        assert await configured(first, 1, max_running=100, max_running_per_key=2)
        await keyed(system, first, 4)
        early = await polled(first, max_tasks=100)
        assert len(early) == 16
        # The one that is told has not heard of the first settings.
        assert await configured(second, 2, max_running_per_key=2)
        third = await system.start()
        for instance in (first, second, third):
            await keyed(system, instance, 1)
            assert await of_keys(instance, 0.2) == {}
        assert await only_at(first, home_of(first), 16 + 24)
        await ended(system, first, early)
        assert await of_keys(third, 5) == dict.fromkeys(KEYS, 2)
        # Without any limit they are spread again, and with new ones those that run are counted.
        assert await configured(third, 3)
        await keyed(system, third, 4)
        assert len([count for count in (await where(first)).values() if count]) > 1
        assert (await of_keys(first, 5)).total() > 0
        assert await configured(first, 4, max_running_per_key=2)
        await keyed(system, second, 1)
        assert await of_keys(second, 0.5) == {}


async def test_nothing_is_leased_while_too_many_keys_run_elsewhere(
    database: str, shards: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(homes, "_MOST_KEYS", 2)
    async with cluster(database, shards) as system:
        instance = await system.start()
        system.ledger.answer = settle
        assert await configured(instance, 1, max_running_per_key=2)
        await keyed(system, instance, 3)
        early = await polled(instance, max_tasks=100)
        assert await configured(instance, 2, max_running=100, max_running_per_key=2)
        await system.dispatcher(instance).many(3)
        assert await polled(instance, 0.3) == []
        left = {item.task.labels["key"]: item for item in early}["a"]
        await ended(system, instance, [item for item in early if item is not left])
        got: list[Any] = []

        async def all_others() -> bool:
            got.extend(await polled(instance, 0.2, max_tasks=100))
            return len(got) == 3 + 1 + len(KEYS) - 1

        await wait_until(all_others, seconds=20)


async def test_a_rate_holds_over_all_instances(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(), await system.start()
        rate = pb.TokenBucket(units=20, period_ms=1_000, burst=5)
        assert await configured(first, 1, rate=rate)
        await system.dispatcher(first).many(40)
        begun = time.monotonic()
        got = 0

        async def take(instance: Instance) -> None:
            nonlocal got
            while got < 25:
                items = await polled(instance, 0.5, max_tasks=100)
                got += len(items)
                assert got <= 5 + 20 * (time.monotonic() - begun) + 1

        await asyncio.gather(take(first), take(second))
        # 5 at once, then 20 in a second.
        assert 0.8 < time.monotonic() - begun < 5


async def test_slots_of_a_crashed_instance_are_free_again(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(lease_ttl=1.0), await system.start(lease_ttl=1.0)
        system.ledger.answer = settle
        assert await configured(first, 1, max_running=3, max_running_per_key=2)
        doomed = await system.worker(first, "doomed").connect(credit=10)
        await system.dispatcher(second).many(10, traits=traits(limit_key="k"))
        await doomed.next_task(2)
        assert await polled(second) == []
        await first.crash()
        got: list[Any] = []

        async def all_done() -> bool:
            items = await polled(second, 0.2, max_tasks=100)
            assert len(items) <= 2
            got.extend(items)
            await finished(second, items)
            return len(got) == 10

        await wait_until(all_done, seconds=40)
        figures = await depth(second)
        assert (figures.ready, figures.leased) == (0, 0)


async def test_slots_survive_a_wiped_home(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        system.ledger.answer = settle
        assert await configured(instance, 1, max_running=3)
        worker = await system.worker(instance).connect(credit=2)
        dispatcher = system.dispatcher(instance)
        await dispatcher.many(2)
        tokens = await worker.next_task(2)
        held = instance.execution.sessions.all()[0].leases
        await wait_until(lambda: all(item.received for item in held.values()))
        before = {shard.name: shard.epoch for shard in instance.execution.shards.all()}
        for shard in instance.execution.shards.all():
            assert shard._connection
            await shard._connection.call("FLUSHALL")
        await wait_until(lambda: reopened(instance, before), seconds=30)
        await dispatcher.many(10)
        assert len(await polled(instance, 5)) == 1
        assert await polled(instance) == []
        await worker.finish(*tokens)
        assert len(await polled(instance, 5)) + len(await polled(instance, 1)) == 2


async def wiped(instance: Instance) -> dict[str, int]:
    """Wipe all shards; returns the epochs before."""
    before = {shard.name: shard.epoch for shard in instance.execution.shards.all()}
    for shard in instance.execution.shards.all():
        assert shard._connection
        await shard._connection.call("FLUSHALL")
    return before


@pytest.mark.parametrize("settles", ["before", "after"])
async def test_slots_survive_an_instance_and_the_home_together(
    database: str, shards: dict[str, str], settles: str
) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(lease_ttl=60), await system.start(lease_ttl=60)
        system.ledger.answer = settle
        assert await configured(first, 1, max_running=4, max_running_per_key=2)
        worker = await system.worker(first).connect(credit=3)
        dispatcher = system.dispatcher(second)
        await dispatcher.many(2, traits=traits(limit_key="k"))
        await dispatcher.one()
        tokens = await worker.next_task(3)
        held = first.execution.sessions.all()[0].leases
        await wait_until(lambda: all(item.received for item in held.values()))
        await first.crash()
        before: dict[str, int] = {}
        if settles == "after":
            before = await wiped(second)
        moved = await system.worker(second, held_leases=tokens).connect()
        assert [item.kept for item in moved.welcome.held_leases] == [True] * 3
        if settles == "before":
            before = await wiped(second)
        del system.peers.instances["execution-1"]
        await wait_until(lambda: reopened(second, before), seconds=30)
        await dispatcher.many(5, traits=traits(limit_key="k"))
        assert await polled(second) == []
        await dispatcher.many(5)
        assert len(await polled(second, 5)) == 1
        assert await polled(second) == []
        assert (await depth(second)).leased == 4
        await moved.finish(*tokens)
        got: list[Any] = []

        async def three() -> bool:
            got.extend(await polled(second, 0.5))
            return len(got) == 3

        await wait_until(three)
        assert await polled(second) == []
        assert (await depth(second)).leased == 4


async def test_slots_survive_a_wiped_home_while_their_worker_is_away(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(lease_ttl=60), await system.start(lease_ttl=60)
        system.ledger.answer = settle
        assert await configured(first, 1, max_running=2)
        worker = await system.worker(first).connect(credit=2)
        dispatcher = system.dispatcher(second)
        await dispatcher.many(2)
        tokens = await worker.next_task(2)
        held = first.execution.sessions.all()[0].leases
        await wait_until(lambda: all(item.received for item in held.values()))
        await worker.close()
        await wait_until(lambda: not first.execution.sessions.all())
        before = await wiped(second)
        for instance in (first, second):
            await wait_until(lambda: reopened(instance, before), seconds=30)  # noqa: B023
        await dispatcher.many(5)
        assert await polled(first) == []
        assert (await depth(second)).leased == 2
        moved = await system.worker(second, held_leases=tokens).connect()
        assert [item.kept for item in moved.welcome.held_leases] == [True] * 2
        assert await polled(second) == []
        # A second wipe: the instance where the worker was must not take its leases from where it is.
        before = await wiped(second)
        for instance in (first, second):
            await wait_until(lambda: reopened(instance, before), seconds=30)  # noqa: B023
        (session,) = second.execution.sessions.all()
        home = second.execution.shards.owner(b"default/default")
        assert home
        assert home._connection
        assert await home._connection.call("SCARD", f"mq:session:{session.id}") == 2
        await moved.finish(tokens[0])
        await wait_until(lambda: tokens[0] in moved.acks)
        await dispatcher.many(5)
        assert len(await polled(second, 5)) == 1


async def test_polled_leases_keep_their_slots_on_a_wiped_home(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        assert await configured(instance, 1, max_running=3, max_running_per_key=2)
        dispatcher = system.dispatcher(instance)
        await dispatcher.many(5, traits=traits(limit_key="k"))
        held = await polled(instance, lease_ttl=seconds(20))
        assert len(held) == 2
        before = {shard.name: shard.epoch for shard in instance.execution.shards.all()}
        for shard in instance.execution.shards.all():
            assert shard._connection
            await shard._connection.call("FLUSHALL")
        await wait_until(lambda: reopened(instance, before), seconds=30)
        await dispatcher.many(5, traits=traits(limit_key="k"))
        assert await polled(instance) == []
        await dispatcher.many(5, traits=traits(limit_key="other"))
        assert len(await polled(instance, 5)) == 1
        await finished(instance, held)
        assert len(await polled(instance, 5)) >= 1


async def test_a_silent_shard_delays_a_limit_for_a_lease_time_only(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start(lease_ttl=1.0)
        home = home_of(instance)
        silent = next(shard for shard in instance.execution.shards.all() if shard.name != home)
        keeper = instance.execution.shards._keepers[silent.name]
        await keeper._repeater.stop()
        silent.detach()
        assert not await configured(instance, 1, max_running=2)
        await system.dispatcher(instance).many(10)
        assert await polled(instance) == []
        assert len(await polled(instance, 15)) == 2
        await keeper.start()
        await instance.open()
        assert await polled(instance) == []


async def test_tasks_say_what_they_wait_for(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(), await system.start()
        dispatcher = system.dispatcher(first)
        now = int(time.time() * 1000)
        ready, due = await dispatcher.one(), await dispatcher.one(ready_time_ms=now + 60_000)
        nobody, waits, nowhere = await explained(second, ready, due, b"n" * 16)
        assert nobody.waiting.reason == NO_WORKER
        assert (waits.waiting.reason, waits.waiting.due_time.ToMilliseconds()) == (NOT_DUE, now + 60_000)
        assert nowhere.waiting.reason == DISPATCHING
        worker = await system.worker(first).connect()
        (line,) = await explained(second, ready)
        assert (line.waiting.reason, line.waiting.workers, line.running) == (IN_LINE, 1, False)
        await configured(first, 1, paused=True)
        (paused,) = await explained(second, ready)
        assert paused.waiting.reason == PAUSED
        assert paused.waiting.message
        await configured(first, 2, max_running=1)
        await worker.credit(1)
        (token,) = await worker.next_task()
        behind = await dispatcher.one()
        (limited,) = await explained(second, behind)
        assert (limited.waiting.reason, limited.waiting.limit, limited.waiting.in_use) == (QUEUE_LIMIT, 1, 1)
        await worker.say(token, fraction=0.25, message="going", detail=Value(number_value=7))
        await worker.say(token, message="on")
        board = first.execution.board
        await wait_until(lambda: (told := board.of(ready)) and told.message == "on")
        (running,) = await explained(second, ready)
        assert running.running
        assert (running.progress.fraction, running.progress.message) == (0.25, "on")
        # What has only a token is a sign of life and no news.
        await worker.say(token)
        await worker.finish(token)
        await wait_until(lambda: worker.acks.get(token))
        assert board.of(ready) is None
        shard = first.execution.shards.all()[0]
        shard.detach()
        (unknown,) = await explained(first, b"n" * 16)
        assert not unknown.HasField("waiting")


async def test_keys_and_rates_say_what_they_wait_for(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        await system.worker(instance).connect()
        bucket = pb.TokenBucket(units=1, period_ms=60_000, burst=2)
        assert await configured(instance, 1, max_running_per_key=1, rate=bucket)
        dispatcher = system.dispatcher(instance)
        first, second = await dispatcher.many(2, traits=traits(limit_key="k"))
        (item,) = await polled(instance, max_tasks=5)
        other = second if task_of(item) == first else first
        (busy,) = await explained(instance, other)
        assert (busy.waiting.reason, busy.waiting.limit, busy.waiting.in_use) == (KEY_BUSY, 1, 1)
        await dispatcher.one()
        assert len(await polled(instance, 1)) == 1
        late = await dispatcher.one()
        (rate,) = await explained(instance, late)
        assert (rate.waiting.reason, rate.waiting.limit) == (RATE_LIMIT, 1)
        assert rate.waiting.due_time.ToSeconds() > time.time() + 10


async def test_parked_tasks_can_be_withdrawn(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        assert await configured(instance, 1, max_running_per_key=1)
        ids = await system.dispatcher(instance).many(5, traits=traits(limit_key="k"))
        (item,) = await polled(instance)
        waiting = [task_id for task_id in ids if task_id != task_of(item)]
        assert await withdrawn(instance, *waiting) == [1] * 4
        assert (await depth(instance)).ready == 0


async def test_sessions_divide_their_room_by_weight(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        dispatcher = system.dispatcher(instance)
        for queue in ("heavy", "light"):
            for _ in range(2):
                await dispatcher.many(100, queue=queue)
        queues = ["heavy", "light"]
        worker = await system.worker(instance, queues=queues, queue_weights={"heavy": 3}).connect(credit=100)
        await worker.next_task(100)
        kinds = Counter(queue_of(instance, token) for token in worker.assigned)
        assert 70 <= kinds["heavy"] <= 80
        # What one leaves over goes to the other.
        await worker.credit(300)
        await worker.next_task(400)


def queue_of(instance: Instance, token: bytes) -> str:
    held = instance.execution.sessions.all()[0].leases[token]
    return held.lane.split("/")[1]


async def test_polls_divide_their_room_by_weight_from_poll_to_poll(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        dispatcher = system.dispatcher(instance)
        heavy = set(await dispatcher.many(60, queue="heavy"))
        await dispatcher.many(30, queue="light")
        wish: dict[str, Any] = {"queues": ["heavy", "light"], "queue_weights": {"heavy": 2, "light": 1}}
        got = [item for _ in range(30) for item in await polled(instance, max_tasks=1, **wish)]
        assert 18 <= len([item for item in got if task_of(item) in heavy]) <= 22
        rest = await polled(instance, max_tasks=100, **wish)
        assert len(rest) == 60


@pytest.mark.parametrize(
    ("weights", "field"),
    [({"other": 1}, "queue_weights"), ({"default": 0}, "queue_weights['default']"), ({"default": 1_001}, "")],
)
async def test_bad_weights_name_their_field(
    database: str, shards: dict[str, str], weights: dict[str, int], field: str
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        with pytest.raises(Exception, match="must") as caught:
            await polled(instance, queue_weights=weights)
        error: Any = from_rpc_error(caught.value)  # type: ignore[arg-type]
        assert error.violations[0].field.startswith(field or "queue_weights")


async def test_bad_settings_name_their_field(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        with pytest.raises(Exception, match="must") as caught:
            await configured(instance, 1, queue="not ok")
        error: Any = from_rpc_error(caught.value)  # type: ignore[arg-type]
        assert error.violations[0].field == "queues[0].queue"


async def test_a_poll_waits_no_longer_for_a_lease_time(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        assert await configured(instance, 1, max_running=1)
        await system.dispatcher(instance).many(2)
        (item,) = await polled(instance, lease_ttl=seconds(60))
        waiting = asyncio.create_task(polled(instance, 20))
        await wait_until(lambda: instance.execution.polls._waiting)
        begun = time.monotonic()
        await finished(instance, [item])
        assert len(await waiting) == 1
        assert time.monotonic() - begun < 1.0
