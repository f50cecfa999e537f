"""Checkpoints and progress: written behind, given to the next attempt, and forgotten."""

import time
from typing import Any

import psycopg
import pytest
from fixtures.execution import (
    DONE,
    RUN,
    Cluster,
    Instance,
    cluster,
    completed,
    polled,
    seconds,
    wait_until,
)
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value

from meshq.contract.errors import Unavailable
from meshq.contract.limits import MAX_CHECKPOINT_BYTES
from meshq.contract.status import from_rpc_error
from meshq.internal.v1 import attempt_service_pb2 as attempt_pb
from meshq.internal.v1 import ledger_service_pb2 as ledger_pb
from meshq.v1 import task_pb2
from meshq.v1 import worker_service_pb2 as pb

FAILED, LOST = 2, 4
ACCEPTED = 1
BROKEN = pb.Failure(error=task_pb2.TaskError(type="Broken"))


def value(content: Any) -> Value:
    return ParseDict(content, Value())


async def stored(database: str) -> dict[bytes, tuple[int, bytes]]:
    """The table: attempt and content by task."""
    async with await psycopg.AsyncConnection.connect(database) as connection:
        cursor = await connection.execute("SELECT task_id, attempt, checkpoint FROM checkpoints")
        return {row[0].bytes: (row[1], row[2]) for row in await cursor.fetchall()}


def run_again(report: ledger_pb.AttemptReport) -> ledger_pb.Directive:
    """Another attempt at once, whatever happened."""
    if not report.outcome:
        return ledger_pb.Directive(kind=ledger_pb.DIRECTIVE_KIND_KEEP)
    if report.outcome == 1:
        return ledger_pb.Directive(kind=DONE)
    now = int(time.time() * 1000)
    return ledger_pb.Directive(kind=RUN, attempt=report.attempt + 1, not_before_ms=now)


async def test_the_next_attempt_of_a_session_goes_on_at_the_checkpoint(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        system.ledger.answer = run_again
        worker = await system.worker(instance).connect(credit=1)
        task_id = await system.dispatcher(instance).one()
        (token,) = await worker.next_task()
        assert not worker.assigned[token].HasField("checkpoint")
        await worker.say(token, checkpoint=value({"row": 1}))
        await wait_until(lambda: is_stored(database, task_id, {"row": 1}))
        # The second one waits for its time, or for the end of the attempt.
        await worker.say(token, checkpoint=value({"row": 2}))
        await worker.report(token, failure=BROKEN)
        await worker.credit(1)
        again = next(found for found in await worker.next_task(2) if found != token)
        assert worker.assigned[again].attempt == 2
        assert worker.assigned[again].checkpoint == value({"row": 2})
        assert (await stored(database))[task_id] == (1, value({"row": 2}).SerializeToString())


async def is_stored(database: str, task_id: bytes, content: Any) -> bool:
    found = (await stored(database)).get(task_id)
    return found is not None and Value.FromString(found[1]) == value(content)


async def test_the_next_poll_goes_on_at_the_checkpoint_on_any_instance(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(), await system.start()
        system.ledger.answer = run_again
        await system.dispatcher(first).one()
        (item,) = await polled(first)
        for step in range(3):
            said = pb.LeaseProgress(lease_token=item.lease_token, checkpoint=value(step))
            await first.worker.HeartbeatTasks(pb.HeartbeatTasksRequest(worker_id="p", progress=[said]))
        result = pb.TaskResult(lease_token=item.lease_token, snooze=pb.Snooze(delay=seconds(0)))
        assert await completed(second, result) == [ACCEPTED]
        (item,) = await polled(second, 10, request_id="r")
        assert (item.attempt, item.checkpoint) == (2, value(2))
        (item,) = await polled(first, 0, request_id="r")
        assert item.checkpoint == value(2)


async def test_a_checkpoint_survives_its_worker_and_its_instance(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(lease_ttl=1.0), await system.start(lease_ttl=1.0)
        system.ledger.answer = run_again
        task_id = await system.dispatcher(second).one()
        (item,) = await polled(first, lease_ttl=seconds(1))
        said = pb.LeaseProgress(lease_token=item.lease_token, checkpoint=value("kept"))
        await first.worker.HeartbeatTasks(pb.HeartbeatTasksRequest(worker_id="p", progress=[said]))
        await wait_until(lambda: is_stored(database, task_id, "kept"))
        await first.crash()
        (item,) = await polled(second, 15)
        assert (item.attempt, item.checkpoint) == (2, value("kept"))
        assert system.ledger.of(task_id, LOST)


async def test_an_earlier_attempt_does_not_replace_the_checkpoint_of_a_later_one(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        first, second = await system.start(), await system.start()
        system.ledger.answer = run_again
        task_id = await system.dispatcher(first).one()
        (early,) = await polled(first)
        assert await completed(first, pb.TaskResult(lease_token=early.lease_token, failure=BROKEN)) == [
            ACCEPTED
        ]
        (late,) = await polled(first, 10)
        await say(first, late, "late")
        await wait_until(lambda: is_stored(database, task_id, "late"))
        await say(second, early, "early")
        await second.execution.checkpoints.run_once()
        assert (await stored(database))[task_id][0] == 2


async def test_a_lost_lease_does_not_replace_the_checkpoint_of_the_one_that_holds(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        task_id = await system.dispatcher(instance).one()
        (former,) = await polled(instance)
        back = pb.TaskResult(lease_token=former.lease_token, release=pb.Release())
        assert await completed(instance, back) == [ACCEPTED]
        (holder,) = await polled(instance, 10)
        assert holder.attempt == former.attempt
        await say(instance, holder, "of the holder")
        await say(instance, former, "stale")
        assert await is_stored(database, task_id, "of the holder")
        assert not instance.execution.checkpoints._waiting


async def say(instance: Instance, item: pb.Assignment, content: Any) -> None:
    said = pb.LeaseProgress(lease_token=item.lease_token, checkpoint=value(content))
    await instance.worker.HeartbeatTasks(pb.HeartbeatTasksRequest(worker_id="p", progress=[said]))


async def test_without_the_database_a_retried_task_waits_for_its_checkpoint(
    database: str, shards: dict[str, str]
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        system.ledger.answer = run_again
        await system.dispatcher(instance).one()
        (item,) = await polled(instance)
        await say(instance, item, "here")
        assert await completed(instance, pb.TaskResult(lease_token=item.lease_token, failure=BROKEN)) == [
            ACCEPTED
        ]
        store = instance.execution.checkpoints._store
        load = store.load
        setattr(store, "load", unavailable)  # noqa: B010
        assert await polled(instance, 1) == []
        setattr(store, "load", load)  # noqa: B010
        (item,) = await polled(instance, 10)
        assert item.checkpoint == value("here")


async def unavailable(_task_ids: Any) -> Any:
    raise Unavailable("not now")


async def test_deleting_a_task_forgets_its_checkpoint(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        task_id = await system.dispatcher(instance).one()
        (item,) = await polled(instance)
        await say(instance, item, [1, 2])
        await wait_until(lambda: is_stored(database, task_id, [1, 2]))
        await instance.attempts.DeleteAttempts(attempt_pb.DeleteAttemptsRequest(task_ids=[task_id]))
        assert await stored(database) == {}


async def test_many_checkpoints_of_a_task_are_few_writes(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        worker = await system.worker(instance).connect(credit=1)
        task_id = await system.dispatcher(instance).one()
        (token,) = await worker.next_task()
        store = instance.execution.checkpoints._store
        writes: list[int] = []
        store_rows = store.store

        async def counted(rows: Any) -> None:
            writes.append(len(rows))
            await store_rows(rows)

        setattr(store, "store", counted)  # noqa: B010
        for step in range(100):
            await worker.say(token, checkpoint=value(step))
        await worker.finish(token)
        await wait_until(lambda: worker.acks.get(token) == ACCEPTED)
        # A task that has succeeded needs none.
        assert len(writes) <= 2
        assert not instance.execution.checkpoints._waiting
        assert set(await stored(database)) <= {task_id}


BAD_PROGRESS: list[tuple[dict[str, Any], str]] = [
    ({"fraction": 1.5}, "fraction"),
    ({"fraction": float("nan")}, "fraction"),
    ({"message": "x" * 1_025}, "message"),
    ({"checkpoint": value("x" * MAX_CHECKPOINT_BYTES)}, "checkpoint"),
]


@pytest.mark.parametrize(("fields", "field"), BAD_PROGRESS)
async def test_bad_progress_names_its_field(
    database: str, shards: dict[str, str], fields: dict[str, Any], field: str
) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        await system.dispatcher(instance).one()
        (item,) = await polled(instance)
        said = pb.LeaseProgress(lease_token=item.lease_token, **fields)
        with pytest.raises(Exception, match="must") as caught:
            await instance.worker.HeartbeatTasks(pb.HeartbeatTasksRequest(worker_id="p", progress=[said]))
        error: Any = from_rpc_error(caught.value)  # type: ignore[arg-type]
        assert error.violations[0].field == f"progress[0].{field}"


async def test_finished_tasks_lose_their_checkpoints_in_time(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        instance = await system.start()
        running, ended = await working(system, instance)
        sweeper = instance.execution.leftovers
        system.ledger.open_ids = {running}
        await sweeper.run_once()
        assert set(await stored(database)) == {running, ended}
        sweeper.age_seconds = 0.0
        await sweeper.run_once()
        assert set(await stored(database)) == {running}


async def working(system: Cluster, instance: Instance) -> list[bytes]:
    ids = await system.dispatcher(instance).many(2)
    for item in await polled(instance):
        await say(instance, item, "x")
    for task_id in ids:
        await wait_until(lambda: is_stored(system.database, task_id, "x"))  # noqa: B023
    return ids
