"""Queues: declared, changed, stopped, deleted; on two instances around an execution played by the test."""

from typing import Any

import grpc
import pytest
from fixtures.management import Cluster, Node, cluster, report, until
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import ParseDict

from meshq.contract.errors import InvalidRequest, MeshqError, Reason
from meshq.contract.status import from_rpc_error
from meshq.v1 import task_pb2
from meshq.v1.queue_service_pb2 import (
    CreateQueueRequest,
    DeleteQueueRequest,
    DrainQueueRequest,
    GetQueueRequest,
    ListQueuesRequest,
    PauseQueueRequest,
    Queue,
    ResumeQueueRequest,
    UpdateQueueRequest,
)

KEY = "default", "q"


async def failure(call: Any) -> MeshqError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


def queue(name: str = "q", **fields: Any) -> Queue:
    return ParseDict({"queue": name, **fields}, Queue())


async def create(node: Node, name: str = "q", **fields: Any) -> Queue:
    return await node.queues.CreateQueue(CreateQueueRequest(queue=queue(name, **fields)))


async def update(node: Node, *paths: str, allow_missing: bool = False, **fields: Any) -> Queue:
    request = UpdateQueueRequest(
        queue=queue(**fields), update_mask=FieldMask(paths=paths), allow_missing=allow_missing
    )
    return await node.queues.UpdateQueue(request)


async def get(node: Node, name: str = "q") -> Queue:
    return await node.queues.GetQueue(GetQueueRequest(queue=name))


async def linked(system: Cluster) -> None:
    """Wait until the instances have met execution."""
    await until(lambda: all(node.management.configuring.links() for node in system.nodes), "the links")


async def test_a_declared_queue_is_shown_with_its_settings_and_known_to_all_instances(database: str) -> None:
    async with cluster(database, nodes=2) as system:
        one, other = system.nodes
        made = await create(one, defaults={"priority": 4}, retentionDays=30, limits={"maxRunning": 3})
        assert (made.defaults.priority, made.retention_days, made.limits.max_running) == (4, 30, 3)
        assert (made.poison_limit, made.max_open_tasks, made.counts.open) == (5, 0, 0)
        assert made.HasField("create_time")
        assert made.HasField("update_time")
        assert one.management.book.settings(*KEY).defaults.priority == 4
        assert await get(other) == made
        await until(lambda: other.management.book.settings(*KEY).retention_days == 30, "the change")
        error = await failure(create(other))
        assert error.reason == Reason.QUEUE_EXISTS
        assert [q.queue for q in (await one.queues.ListQueues(ListQueuesRequest())).queues] == ["q"]


async def test_an_instance_that_starts_later_knows_the_settings_before_it_serves(database: str) -> None:
    async with cluster(database) as system:
        await create(system.nodes[0], maxOpenTasks="7")
        late = await system.add_node()
        assert late.management.book.settings(*KEY).max_open_tasks == 7


async def test_a_queue_in_use_is_updated_by_mask_and_used_by_the_other_instance(database: str) -> None:
    async with cluster(database, nodes=2) as system:
        one, other = system.nodes
        error = await failure(update(one, "poison_limit", poisonLimit=2))
        assert error.reason == Reason.QUEUE_NOT_FOUND
        await one.create(queue="q")
        assert (await get(one)).poison_limit == 5
        assert not (await get(one)).HasField("update_time")
        await update(one, poisonLimit=2, limits={"rate": {"units": "5"}})
        await until(lambda: other.management.book.settings(*KEY).poison_limit == 2, "the change")
        await update(other, "limits.max_running", limits={"maxRunning": 9})
        shown = await get(one)
        assert (shown.poison_limit, shown.limits.max_running, shown.limits.rate.burst) == (2, 9, 5)
        assert shown.limits.rate.period.seconds == 1
        assert shown.counts.open == 1
        made = await one.queues.UpdateQueue(
            UpdateQueueRequest(queue=queue("new", retentionDays=1), allow_missing=True)
        )
        assert (made.queue, made.retention_days) == ("new", 1)


async def test_bad_settings_are_named_and_change_nothing(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        await create(node, retentionDays=3)
        for call, field in (
            (create(node, "?"), "queue.queue"),
            (create(node, "new", retentionDays=4), "queue.retention_days"),
            (update(node, "limits.rate", limits={"rate": {"units": "-1"}}), "queue.limits.rate.units"),
            (update(node, "pause"), "update_mask"),
            (node.queues.PauseQueue(PauseQueueRequest(queue="q", actor="x" * 129)), "actor"),
            (node.queues.DrainQueue(DrainQueueRequest(queue="q", reason="x" * 1_025)), "reason"),
            (node.queues.ResumeQueue(ResumeQueueRequest(queue="")), "queue"),
            (node.queues.DeleteQueue(DeleteQueueRequest(queue="a b")), "queue"),
        ):
            error = await failure(call)
            assert isinstance(error, InvalidRequest)
            assert error.violations[0].field == field
        assert (await get(node)).retention_days == 3


async def test_a_pause_says_who_when_and_why_and_comes_into_force_before_it_answers(database: str) -> None:
    async with cluster(database, nodes=2) as system:
        one, other = system.nodes
        await linked(system)
        await one.create(queue="q")
        paused = await one.queues.PauseQueue(PauseQueueRequest(queue="q", actor="ann", reason="lunch"))
        assert system.execution.configs[KEY].paused
        assert (paused.pause.actor, paused.pause.reason) == ("ann", "lunch")
        assert paused.pause.HasField("time")
        again = await other.queues.PauseQueue(PauseQueueRequest(queue="q", actor="bob"))
        assert again.pause == paused.pause
        drained = await other.queues.DrainQueue(DrainQueueRequest(queue="q", actor="eve"))
        assert (drained.pause.actor, drained.drain.actor) == ("ann", "eve")
        await until(lambda: one.management.book.settings(*KEY).drain, "the change")
        resumed = await other.queues.ResumeQueue(ResumeQueueRequest(queue="q"))
        assert not resumed.HasField("pause")
        assert not resumed.HasField("drain")
        assert not system.execution.configs[KEY].paused
        again = await one.queues.ResumeQueue(ResumeQueueRequest(queue="q"))
        assert again.update_time == resumed.update_time
        error = await failure(one.queues.PauseQueue(PauseQueueRequest(queue="none")))
        assert error.reason == Reason.QUEUE_NOT_FOUND


async def test_what_a_shard_could_not_be_told_is_said_and_told_later(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        await linked(system)
        await create(node)
        system.execution.shard_silent = True
        pause = PauseQueueRequest(queue="q", actor="ann")
        error = await failure(node.queues.PauseQueue(pause))
        assert error.reason == Reason.SHARD_UNAVAILABLE
        assert (await get(node)).pause.actor == "ann"
        assert (await failure(node.queues.PauseQueue(pause))).reason == Reason.SHARD_UNAVAILABLE
        # What concerns no shard is not held up by it.
        await node.queues.UpdateQueue(UpdateQueueRequest(queue=queue("p", poisonLimit=3), allow_missing=True))
        told = system.execution.configured
        await until(lambda: system.execution.configured > told, "the next try")
        system.execution.shard_silent = False
        await node.queues.PauseQueue(pause)


async def test_a_refused_change_is_told_again_until_it_is_in_force(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        await linked(system)
        await create(node)
        system.execution.refuses_settings = True
        error = await failure(update(node, limits={"maxRunning": 2}))
        assert error.reason == Reason.SHARD_UNAVAILABLE
        system.execution.refuses_settings = False
        await until(lambda: KEY in system.execution.configs, "the settings")
        assert system.execution.configs[KEY].max_running == 2


async def test_without_execution_a_pause_is_not_promised(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        await create(node)
        system.show_execution([])
        error = await failure(node.queues.PauseQueue(PauseQueueRequest(queue="q")))
        assert error.reason == Reason.SHARD_UNAVAILABLE
        system.show_execution(["e-2"])
        await until(lambda: KEY in system.execution.configs, "the settings")


async def test_an_instance_of_execution_that_is_met_is_told_what_concerns_it(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        await linked(system)
        await create(node, "plain", defaults={"priority": 1})
        await create(node, limits={"maxRunningPerKey": 2, "ratePerKey": {"units": "6", "period": "60s"}})
        await create(node, "was", limits={"maxRunning": 1})
        await node.queues.UpdateQueue(
            UpdateQueueRequest(queue=queue("was"), update_mask=FieldMask(paths=["limits"]))
        )
        system.execution.configs.clear()
        system.show_execution(["e-2"])
        await until(lambda: KEY in system.execution.configs, "the settings")
        assert {name for _, name in system.execution.configs} == {"q", "was"}
        config = system.execution.configs[KEY]
        assert (config.max_running_per_key, config.rate_per_key.units) == (2, 6)
        assert (config.rate_per_key.period_ms, config.rate_per_key.burst) == (60_000, 6)
        assert not config.paused
        assert not system.execution.configs["default", "was"].max_running


async def test_only_a_queue_without_open_tasks_is_deleted_and_execution_forgets_its_limits(
    database: str,
) -> None:
    async with cluster(database, nodes=2) as system:
        one, other = system.nodes
        await linked(system)
        await create(one, limits={"maxRunning": 1}, maxOpenTasks="5")
        await one.create(queue="q")
        delete = DeleteQueueRequest(queue="q")
        assert (await failure(other.queues.DeleteQueue(delete))).reason == Reason.QUEUE_NOT_EMPTY
        (task_id,) = await until(lambda: list(system.execution.shard), "the dispatch")
        await one.report(report(task_id, 1, task_pb2.ATTEMPT_OUTCOME_SUCCEEDED))
        gone = await other.queues.DeleteQueue(delete)
        assert (gone.limits.max_running, gone.counts.succeeded) == (1, 1)
        assert not system.execution.configs[KEY].max_running
        await until(lambda: not one.management.book.settings(*KEY).max_open_tasks, "the deletion")
        assert (await failure(get(one))).reason == Reason.QUEUE_NOT_FOUND
        assert (await failure(one.queues.DeleteQueue(delete))).reason == Reason.QUEUE_NOT_FOUND
        # It comes into being again on an instance that has used it before, without settings and figures.
        await one.create(queue="q")
        back = await get(one)
        assert (back.counts.open, back.counts.succeeded, back.max_open_tasks) == (1, 0, 0)
        await update(other, limits={"maxRunning": 4})
        await until(lambda: system.execution.configs[KEY].max_running == 4, "the settings")
