"""Changing tasks that do not run yet."""

import asyncio
import uuid
from typing import Any

import pytest
from fixtures.failures import failure
from fixtures.management import Node, cluster, report, until
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from meshq.contract.errors import (
    InvalidRequest,
    NotFound,
    PreconditionFailed,
    Reason,
    Unavailable,
)
from meshq.management.conversion.updates import read_update
from meshq.v1 import task_pb2
from meshq.v1 import task_service_pb2 as pb

SUCCEEDED = task_pb2.ATTEMPT_OUTCOME_SUCCEEDED
PENDING = task_pb2.TASK_STATE_PENDING
SCHEDULED = task_pb2.TASK_STATE_SCHEDULED
HOUR = Duration(seconds=3_600)


def raw(task: task_pb2.Task) -> bytes:
    return uuid.UUID(task.task_id).bytes


async def update(node: Node, task: task_pb2.Task, *paths: str, **fields: Any) -> task_pb2.Task:
    request = pb.UpdateTaskRequest(task=task_pb2.Task(task_id=task.task_id, **fields))
    if paths:
        request.update_mask.CopyFrom(FieldMask(paths=paths))
    return await node.tasks.UpdateTask(request)


async def listed(node: Node, *labels: str) -> list[str]:
    page = await node.tasks.ListTasks(pb.ListTasksRequest(labels=labels))
    return [task.task_id for task in page.tasks]


async def test_a_dispatched_task_is_recalled_and_dispatched_anew(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        task = await node.create(data=b"old", labels={"a": "1"}, fairness_key="f")
        await until(lambda: raw(task) in system.execution.shard)
        new = await update(
            node, task, priority=5, data=b"new", content_type="x/y", labels={"b": "2"}, start_delay=Duration()
        )
        assert (new.attempt, new.spared_attempts, new.state) == (2, 1, PENDING)
        assert (new.priority, new.data, new.content_type, dict(new.labels)) == (5, b"new", "x/y", {"b": "2"})
        assert new.fairness_key == "f"
        held = await until(lambda: system.execution.shard.get(raw(task)))
        assert held.attempt == 2
        spec = task_pb2.Task.FromString(held.spec)
        assert (spec.data, spec.priority, dict(spec.labels)) == (b"new", 5, {"b": "2"})
        assert (await listed(node, "a=1"), await listed(node, "b=2")) == ([], [task.task_id])
        basic = await node.get(task.task_id)
        assert (basic.priority, dict(basic.labels), basic.data) == (5, {"b": "2"}, b"")
        await node.report(report(raw(task), 1, SUCCEEDED))
        assert (await node.get(task.task_id)).state == PENDING
        await node.report(report(raw(task), 2, SUCCEEDED))
        assert (await node.get(task.task_id)).state == task_pb2.TASK_STATE_SUCCEEDED


async def test_a_task_that_is_far_away_is_changed_in_the_ledger_alone(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        task = await node.create(start_delay=HOUR, schedule_to_close_timeout=HOUR)
        later = Timestamp(seconds=task.start_time.seconds + 60)
        moved = await update(node, task, "start_time", start_time=later)
        assert (moved.state, moved.attempt, moved.start_time, moved.next_start_time) == (
            SCHEDULED,
            1,
            later,
            later,
        )
        assert not system.execution.withdrawn
        now = await update(node, task, "start_time")
        assert (now.state, now.attempt, now.HasField("start_time")) == (PENDING, 1, False)
        await until(lambda: raw(task) in system.execution.shard)
        away = await update(node, task, "start_delay", start_delay=HOUR)
        assert (away.state, away.attempt, away.spared_attempts) == (SCHEDULED, 2, 1)
        assert raw(task) not in system.execution.shard


async def test_a_mask_names_what_changes_and_what_is_cleared(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        task = await node.create(
            data=b"x", content_type="x/y", labels={"a": "1"}, priority=4, start_delay=HOUR
        )
        kept = await update(node, task, "priority", labels={"b": "2"}, priority=6)
        assert (kept.priority, dict(kept.labels)) == (6, {"a": "1"})
        cleared = await update(node, task, "labels", "priority", "payload", payload={"number_value": 1})
        assert (cleared.HasField("priority"), dict(cleared.labels)) == (False, {})
        assert (cleared.payload.number_value, cleared.data, cleared.content_type) == (1, b"", "")
        plain = await update(node, task, "start_time")
        assert plain.state == PENDING
        row = (await node.management.ledger.get_tasks([raw(task)], full=True))[raw(task)]
        assert (row.traits, row.labels) == (None, None)


async def test_what_a_worker_has_or_has_ended_is_not_changed(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        leased, running, done, cancelling = [await node.create() for _ in range(4)]
        await until(lambda: len(system.execution.shard) == 4)
        for task in (leased, running, cancelling):
            system.execution.lease(raw(task))
        await node.report(report(raw(running), 1, task_pb2.ATTEMPT_OUTCOME_UNSPECIFIED))
        await node.report(report(raw(done), 1, SUCCEEDED))
        await node.tasks.CancelTask(pb.CancelTaskRequest(task_id=cancelling.task_id))
        for task in (leased, running, done, cancelling):
            error = await failure(update(node, task, priority=1))
            assert isinstance(error, PreconditionFailed)
            assert error.reason == Reason.TASK_STARTED
        assert (await node.get(leased.task_id)).attempt == 1
        unknown = task_pb2.Task(task_id=str(uuid.uuid4()))
        assert isinstance(await failure(update(node, unknown, priority=1)), NotFound)


async def test_a_shard_that_cannot_say_leaves_the_task_as_it_is(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        task = await node.create()
        system.execution.recovering = True
        error = await failure(update(node, task, priority=1))
        assert isinstance(error, Unavailable)
        assert error.reason == Reason.SHARD_UNAVAILABLE
        assert not (await node.get(task.task_id)).HasField("priority")


async def test_updates_at_the_same_time_are_all_made(database: str) -> None:
    async with cluster(database, nodes=2) as system:
        node, other = system.nodes
        near, far = await node.create(), await node.create(start_delay=HOUR)
        for task in (near, far):
            await asyncio.gather(
                update(node, task, priority=3),
                update(other, task, labels={"a": "b"}),
                update(node, task, data=b"new"),
            )
            after = await node.get(task.task_id, task_pb2.TASK_VIEW_FULL)
            assert (after.priority, dict(after.labels), after.data) == (3, {"a": "b"}, b"new")
            assert after.spared_attempts == after.attempt - 1
        held = await until(lambda: system.execution.shard.get(raw(near)))
        current = await node.get(near.task_id)
        await until(lambda: system.execution.shard[raw(near)].attempt == current.attempt)
        assert held


async def test_a_cancellation_during_an_update_wins(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        task = await node.create()
        await until(lambda: raw(task) in system.execution.shard)

        async def cancel() -> None:
            system.execution.before_withdraw = None
            await node.tasks.CancelTask(pb.CancelTaskRequest(task_id=task.task_id))

        system.execution.before_withdraw = cancel
        error = await failure(update(node, task, priority=1))
        assert error.reason == Reason.TASK_STARTED
        assert (await node.get(task.task_id)).state == task_pb2.TASK_STATE_CANCELLED


async def test_a_lease_during_an_update_wins(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        task = await node.create()
        await until(lambda: raw(task) in system.execution.shard)

        async def lease() -> None:
            system.execution.lease(raw(task))

        system.execution.before_withdraw = lease
        assert (await failure(update(node, task, priority=1))).reason == Reason.TASK_STARTED
        await node.report(report(raw(task), 1, SUCCEEDED))
        done = await node.get(task.task_id)
        assert (done.state, done.attempt) == (task_pb2.TASK_STATE_SUCCEEDED, 1)


ID = str(uuid.uuid4())


@pytest.mark.parametrize(
    ("task", "paths", "fields"),
    [
        ({"task_id": "x"}, ["priority"], ["task.task_id"]),
        ({}, [], ["update_mask"]),
        ({"queue": "q"}, [], ["update_mask"]),
        ({"priority": 1}, ["queue", "state"], ["update_mask", "update_mask"]),
        ({"priority": 10}, [], ["task.priority"]),
        ({"labels": {"?": "x"}}, [], ["task.labels"]),
        ({"labels": {"a": "x" * 129}}, [], ["task.labels['a']"]),
        ({"start_delay": Duration(seconds=-1)}, [], ["task.start_delay"]),
        ({"start_time": Timestamp(seconds=1 << 34)}, [], ["task.start_time"]),
        ({"start_time": Timestamp(nanos=2 * 10**9)}, [], ["task.start_time"]),
        ({"start_delay": Duration(seconds=5, nanos=-6)}, [], ["task.start_delay"]),
        ({"start_delay": Duration(seconds=1)}, ["start_time"], ["task.start_delay"]),
        ({"data": b"x"}, ["payload"], ["task.data"]),
        ({"data": bytes((1 << 20) + 1)}, [], ["task.data"]),
        ({"content_type": "x/y"}, [], ["update_mask"]),
        ({"data": b"x", "content_type": "x" * 129}, [], ["task.content_type"]),
    ],
)
async def test_a_bad_update_names_its_fields(
    database: str, task: dict[str, Any], paths: list[str], fields: list[str]
) -> None:
    async with cluster(database) as system:
        request = pb.UpdateTaskRequest(
            task=task_pb2.Task(**{"task_id": ID, **task}), update_mask=FieldMask(paths=paths)
        )
        error = await failure(system.nodes[0].tasks.UpdateTask(request))
        assert isinstance(error, InvalidRequest)
        assert [item.field for item in error.violations] == fields


@pytest.mark.parametrize(
    ("task", "paths", "rule"),
    [
        (
            {"start_time": Timestamp(seconds=10**12)},
            ["start_delay"],
            "must be unset where update_mask names start_delay, not seconds 1000000000000, nanos 0",
        ),
        ({"data": b"xyz"}, ["payload"], "must be unset where update_mask names payload, not 3 bytes"),
        (
            {"content_type": "x/y", "priority": 1},
            [],
            "must name data where it names content_type, not only content_type, priority",
        ),
    ],
)
def test_a_mask_that_does_not_fit_names_the_value(task: dict[str, Any], paths: list[str], rule: str) -> None:
    request = pb.UpdateTaskRequest(task=task_pb2.Task(**task), update_mask=FieldMask(paths=paths))
    with pytest.raises(InvalidRequest) as caught:
        read_update(request)
    assert [item.rule for item in caught.value.violations] == [rule]
