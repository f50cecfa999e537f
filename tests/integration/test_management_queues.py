"""Queues: declared, changed, stopped, cleared, deleted; around an execution played by the test."""

import asyncio
from typing import Any
from uuid import UUID

import grpc
from fixtures.failures import failure
from fixtures.managed_queues import create, get, linked, queue, update
from fixtures.management import Node, cluster, report, until
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from meshq.contract.errors import InvalidRequest, Reason
from meshq.v1 import task_pb2, task_service_pb2
from meshq.v1.queue_service_pb2 import (
    DeleteQueueRequest,
    DrainQueueRequest,
    ListQueuesRequest,
    PauseQueueRequest,
    PurgeQueueRequest,
    ResumeQueueRequest,
    UpdateQueueRequest,
)

KEY = "default", "q"


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
            (node.queues.ResumeQueue(ResumeQueueRequest(queue="q", actor="x" * 129)), "actor"),
            (node.queues.ResumeQueue(ResumeQueueRequest(queue="q", reason="x" * 1_025)), "reason"),
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
        assert not drained.HasField("resumed")
        resume = ResumeQueueRequest(queue="q", actor="ann", reason="back")
        resumed = await other.queues.ResumeQueue(resume)
        assert not resumed.HasField("pause")
        assert not resumed.HasField("drain")
        assert not system.execution.configs[KEY].paused
        assert (resumed.resumed.actor, resumed.resumed.reason) == ("ann", "back")
        assert resumed.resumed.time == resumed.update_time
        again = await one.queues.ResumeQueue(ResumeQueueRequest(queue="q", actor="bob"))
        assert (again.resumed, again.update_time) == (resumed.resumed, resumed.update_time)
        set_ = await one.queues.UpdateQueue(UpdateQueueRequest(queue=queue(retentionDays=1)))
        assert set_.resumed == resumed.resumed
        drained = await one.queues.DrainQueue(DrainQueueRequest(queue="q"))
        assert not drained.HasField("resumed")
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


async def test_an_instance_that_may_have_begun_anew_is_told_everything_again(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        await linked(system)
        await create(node, limits={"maxRunning": 1})
        await until(lambda: KEY in system.execution.configs, "the settings")
        await until(lambda: system.execution.streams, "the stream")
        system.execution.configs.clear()
        system.execution.break_streams()
        await until(lambda: KEY in system.execution.configs, "the settings again")


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


async def counts(node: Node, name: str = "q") -> dict[str, int]:
    """The open tasks of a queue by state."""
    shown = (await get(node, name)).counts
    parts = {"waiting": shown.waiting, "scheduled": shown.scheduled}
    parts |= {"pending": shown.pending, "running": shown.running}
    assert sum(parts.values()) == shown.open
    return {state: count for state, count in parts.items() if count}


async def purge(node: Node, name: str = "q", **options: Any) -> tuple[int, bool]:
    response = await node.queues.PurgeQueue(PurgeQueueRequest(queue=name, reason="spring"), **options)
    return response.cancelled_count, response.complete


async def test_open_tasks_add_up_by_state(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        first = await node.create(queue="q", ordering_key="k")
        await node.create(queue="q", ordering_key="k")
        await node.create(queue="q", start_delay=Duration(seconds=100))
        await node.create(queue="q", start_delay=Duration(seconds=10_000))
        await node.create(queue="q")
        await node.create(queue="other")
        await until(lambda: len(system.execution.shard) == 4, "the dispatch")
        system.execution.lease(UUID(first.task_id).bytes)
        assert await counts(node) == {"waiting": 1, "scheduled": 2, "pending": 1, "running": 1}
        assert await counts(node, "other") == {"pending": 1}
        shown = await get(node)
        assert shown.arrival_rate > 0
        assert shown.HasField("oldest_pending_age")


async def test_what_is_on_no_shard_yet_is_pending(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        system.execution.swallow = True
        for _ in range(3):
            await node.create(queue="q")
        assert await counts(node) == {"pending": 3}


async def test_many_who_ask_at_once_are_answered_by_one_look_at_the_shards(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        await create(node)
        before = system.execution.described
        shown = await asyncio.gather(*(get(node) for _ in range(20)))
        assert len({item.queue for item in shown}) == 1
        assert system.execution.described <= before + 1


async def test_a_purge_cancels_what_no_worker_has(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        running = await node.create(queue="q", ordering_key="k")
        behind = [await node.create(queue="q", ordering_key="k") for _ in range(3)]
        near = await node.create(queue="q", start_delay=Duration(seconds=100))
        far = await node.create(queue="q", start_delay=Duration(seconds=10_000))
        ready = await node.create(queue="q")
        other = await node.create(queue="other")
        await until(lambda: len(system.execution.shard) == 4, "the dispatch")
        task_id = UUID(running.task_id).bytes
        system.execution.lease(task_id)
        assert await purge(node) == (6, True)
        for task in (*behind, near, far, ready):
            ended = await node.get(task.task_id)
            assert (ended.state, ended.cancel_reason) == (task_pb2.TASK_STATE_CANCELLED, "spring")
        assert set(system.execution.shard) == {task_id, UUID(other.task_id).bytes}
        assert (await node.get(running.task_id)).state == task_pb2.TASK_STATE_PENDING
        assert await purge(node) == (0, True)
        await node.report(report(task_id, 1, task_pb2.ATTEMPT_OUTCOME_SUCCEEDED))
        shown = (await get(node)).counts
        assert (shown.open, shown.succeeded, shown.cancelled) == (0, 1, 6)
        assert (await failure(purge(node, "none"))).reason == Reason.QUEUE_NOT_FOUND


async def test_a_purge_goes_on_where_the_one_before_ended(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        tasks = [task_pb2.Task(type="t", queue="q") for _ in range(1_000)]
        for _ in range(3):
            await node.tasks.BatchCreateTasks(task_service_pb2.BatchCreateTasksRequest(tasks=tasks))
        ended = 0
        key, purger = ("default", "q"), node.management.purger
        for complete in (False, False, False, True):
            purged = await purger.purge(key, "", 0.0)
            ended += purged.tasks
            assert purged.complete == complete
        assert ended == 3_000
        assert await counts(node) == {}


async def test_what_shards_cannot_say_is_left_to_the_next_purge(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        await node.create(queue="q")
        await node.create(queue="q", start_delay=Duration(seconds=10_000))
        system.execution.recovering = True
        assert await purge(node) == (1, False)
        system.execution.recovering = False
        assert await purge(node) == (1, True)
        error = await failure(node.queues.PurgeQueue(PurgeQueueRequest(queue="q", reason="x" * 1_025)))
        assert isinstance(error, InvalidRequest)


async def test_a_full_queue_refuses_tasks_also_on_an_instance_that_has_just_started(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        await create(node, maxOpenTasks="3")
        for _ in range(3):
            await node.create(queue="q")
        assert (await failure(node.create(queue="q"))).reason == Reason.QUEUE_FULL
        late = await system.add_node()
        assert (await failure(late.create(queue="q"))).reason == Reason.QUEUE_FULL
        await late.create(queue="other")
        await purge(node)

        async def taken() -> bool:
            try:
                await late.create(queue="q")
            except grpc.aio.AioRpcError:
                return False
            return True

        await until(taken, "room")


async def test_no_change_is_missed_when_many_come_at_once(database: str) -> None:
    async with cluster(database, nodes=2) as system:
        names = [f"q{number}" for number in range(30)]
        calls = [
            create(system.nodes[number % 2], name, maxOpenTasks=str(number + 1))
            for number, name in enumerate(names)
        ]
        made = await asyncio.gather(*calls)
        assert [item.max_open_tasks for item in made] == list(range(1, 31))

        def known(node: Node) -> list[int]:
            book = node.management.book
            return [book.settings("default", name).max_open_tasks for name in names]

        await until(lambda: all(known(node) == list(range(1, 31)) for node in system.nodes), "the changes")


async def test_a_task_that_slips_into_a_queue_as_it_is_deleted_brings_it_back(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        await create(node)
        await node.queues.DeleteQueue(DeleteQueueRequest(queue="q"))
        # As on an instance that has not heard of the deletion yet.
        node.management.ledger._named.add(KEY)
        await node.create(queue="q")
        assert (await failure(get(node))).reason == Reason.QUEUE_NOT_FOUND
        await node.management.revival.run_once()
        assert (await get(node)).counts.open == 1
