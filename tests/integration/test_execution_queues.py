"""Settings of queues over all shards and instances: pauses, limits, explanations, weights."""

import asyncio
import time
from collections import Counter
from typing import Any

import pytest
from fixtures.execution import (
    Instance,
    cluster,
    polled,
    seconds,
    traits,
    wait_until,
    withdrawn,
)
from fixtures.queues import configured, depth, explained, finished, home_of, reopened, settle, task_of, where
from google.protobuf.struct_pb2 import Value

from meshq.contract.status import from_rpc_error
from meshq.internal.v1 import dispatch_service_pb2 as pb

IN_LINE, NOT_DUE, PAUSED, NO_WORKER, QUEUE_LIMIT, KEY_BUSY, RATE_LIMIT, DISPATCHING = 1, 2, 4, 5, 6, 7, 8, 10


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
