"""What becomes of tasks after their attempts, at their times, and between each other, over the wire."""

import asyncio
import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import grpc
import pytest
from fixtures.management import Cluster, Node, cluster, report, until
from google.protobuf.duration_pb2 import Duration

from meshq.contract.errors import Conflict, MeshqError, Overloaded, PreconditionFailed, Reason
from meshq.contract.status import from_rpc_error
from meshq.internal.v1 import ledger_service_pb2 as pb
from meshq.v1 import queue_service_pb2, task_pb2, task_service_pb2

SUCCEEDED = task_pb2.ATTEMPT_OUTCOME_SUCCEEDED
FAILED = task_pb2.ATTEMPT_OUTCOME_FAILED
CANCELLED = task_pb2.ATTEMPT_OUTCOME_CANCELLED
LOST = task_pb2.ATTEMPT_OUTCOME_LOST
TIMED_OUT = task_pb2.ATTEMPT_OUTCOME_TIMED_OUT
SNOOZED = task_pb2.ATTEMPT_OUTCOME_SNOOZED
STARTED = task_pb2.ATTEMPT_OUTCOME_UNSPECIFIED
MINUTE = timedelta(minutes=1)
SECONDS_60 = Duration(seconds=60)


def raw(task: task_pb2.Task) -> bytes:
    return uuid.UUID(task.task_id).bytes


async def created(node: Node, **fields: Any) -> bytes:
    return raw(await node.create(**fields))


async def shown(node: Node, task_id: bytes) -> task_pb2.Task:
    return await node.get(str(uuid.UUID(bytes=task_id)))


async def refused(node: Node, **fields: Any) -> MeshqError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await node.create(**fields)
    return from_rpc_error(caught.value)


async def batch(
    node: Node, tasks: Sequence[task_pb2.Task], request_id: str = ""
) -> list[task_service_pb2.CreateTaskResult]:
    request = task_service_pb2.BatchCreateTasksRequest(tasks=tasks, request_id=request_id)
    return list((await node.tasks.BatchCreateTasks(request)).results)


async def delete(node: Node, task_id: bytes) -> None:
    request = task_service_pb2.DeleteTaskRequest(task_id=str(uuid.UUID(bytes=task_id)))
    await node.tasks.DeleteTask(request)


async def on_shard(system: Cluster, task_id: bytes) -> None:
    await until(lambda: task_id in system.execution.shard, "the dispatch")


async def set_queue(node: Node, queue: str, **settings: Any) -> None:
    book = node.management.book
    message = queue_service_pb2.Queue(queue=queue, **settings)
    await node.queues.CreateQueue(queue_service_pb2.CreateQueueRequest(queue=message))
    await book.refresh()


async def test_a_failed_task_is_tried_again_by_its_policy(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        policy = task_pb2.RetryPolicy(initial_delay=SECONDS_60, jitter=0, non_retryable_errors=["Fatal"])
        task_id = await created(node, retry_policy=policy, max_attempts=9)
        (directive,) = await node.report(report(task_id, 1, FAILED, error_type="E", error_message="m"))
        assert (directive.kind, directive.attempt) == (pb.DIRECTIVE_KIND_RUN, 2)
        task = await shown(node, task_id)
        assert (task.state, task.attempt, task.error.type) == (task_pb2.TASK_STATE_RETRYING, 2, "E")
        assert task.next_start_time.ToMilliseconds() == directive.not_before_ms
        # Growing beyond five minutes, the task waits in the ledger.
        (directive,) = await node.report(report(task_id, 2, FAILED))
        assert directive.kind == pb.DIRECTIVE_KIND_RUN
        (directive,) = await node.report(report(task_id, 3, FAILED))
        assert directive.kind == pb.DIRECTIVE_KIND_RUN
        (directive,) = await node.report(report(task_id, 4, FAILED))
        assert directive.kind == pb.DIRECTIVE_KIND_LATER
        (directive,) = await node.report(report(task_id, 5, TIMED_OUT, error_type="Fatal"))
        assert (directive.kind, directive.state) == (pb.DIRECTIVE_KIND_DONE, task_pb2.TASK_STATE_FAILED)


async def test_a_worker_says_when_or_never(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        task_id = await created(node)
        (directive,) = await node.report(report(task_id, 1, FAILED, retry_delay_ms=86_400_000))
        assert directive.kind == pb.DIRECTIVE_KIND_LATER
        (directive,) = await node.report(report(task_id, 2, FAILED, retry_delay_ms=0))
        assert directive.kind == pb.DIRECTIVE_KIND_RUN
        (directive,) = await node.report(report(task_id, 3, FAILED, non_retryable=True))
        assert directive.kind == pb.DIRECTIVE_KIND_DONE


async def test_a_snoozed_task_has_lost_no_attempt(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        task_id = await created(node, max_attempts=1)
        for attempt in (1, 2, 3):
            (directive,) = await node.report(report(task_id, attempt, SNOOZED, retry_delay_ms=50))
            assert (directive.kind, directive.attempt) == (pb.DIRECTIVE_KIND_RUN, attempt + 1)
        task = await shown(node, task_id)
        assert (task.attempt, task.spared_attempts) == (4, 3)
        (directive,) = await node.report(report(task_id, 4, FAILED))
        assert directive.kind == pb.DIRECTIVE_KIND_DONE


async def test_attempts_without_answer_are_poison_by_the_limit_of_the_queue(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        await set_queue(node, "p", poison_limit=2)
        task_id = await created(node, queue="p", max_attempts=50)
        await node.report(report(task_id, 1, LOST))
        # An answer, whatever it says, begins the count anew.
        await node.report(report(task_id, 2, FAILED, retry_delay_ms=0))
        await node.report(report(task_id, 3, LOST))
        (directive,) = await node.report(report(task_id, 4, LOST))
        assert directive.kind == pb.DIRECTIVE_KIND_DONE
        system.execution.record(task_id, 4, LOST)
        for view in (task_pb2.TASK_VIEW_BASIC, task_pb2.TASK_VIEW_FULL):
            task = await node.get(str(uuid.UUID(bytes=task_id)), view)
            assert (task.state, task.error.type) == (task_pb2.TASK_STATE_FAILED, "POISON")
            assert task.error.message.startswith("2 attempts in a row ended without an answer")


async def test_a_task_none_of_whose_attempts_was_answered_is_poison(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        never, once = await created(node, max_attempts=2), await created(node, max_attempts=2)
        await node.report(report(never, 1, LOST), report(once, 1, FAILED, retry_delay_ms=0))
        for task_id, reason in ((never, "POISON"), (once, "LOST")):
            (directive,) = await node.report(report(task_id, 2, LOST))
            assert directive.kind == pb.DIRECTIVE_KIND_DONE
            task = await shown(node, task_id)
            assert (task.state, task.error.type) == (task_pb2.TASK_STATE_FAILED, reason)


async def test_an_announced_start_is_known_at_once_and_once(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        task_id = await created(node, max_attempts=1)
        await on_shard(system, task_id)
        item = next(i for frame in system.execution.frames for i in frame.items if i.task_id == task_id)
        assert item.announce_start
        assert not item.started
        (directive,) = await node.report(report(task_id, 1, STARTED))
        assert directive.kind == pb.DIRECTIVE_KIND_KEEP
        assert (await shown(node, task_id)).state == task_pb2.TASK_STATE_RUNNING
        # When no shard has it any more, execution is told that it was started.
        system.execution.shard.clear()
        await on_shard(system, task_id)
        last = next(i for frame in reversed(system.execution.frames) for i in frame.items)
        assert (last.task_id, last.repeat, last.started) == (task_id, True, True)
        (directive,) = await node.report(report(task_id, 1, LOST))
        assert directive.kind == pb.DIRECTIVE_KIND_DONE
        (directive,) = await node.report(report(task_id, 1, STARTED))
        assert directive.kind == pb.DIRECTIVE_KIND_DONE


async def test_a_far_task_stays_in_the_ledger_until_its_time_is_near(database: str) -> None:
    async with cluster(database, sweep_age=600) as system:
        (node,) = system.nodes
        clock = node.management.now_ms
        promoter = node.management.promoter
        # Its first look may come upon what was accepted before it.
        await promoter.run_once()
        far = await created(node, start_delay=timedelta(minutes=10))
        near = await created(node, start_delay=MINUTE)
        await on_shard(system, near)
        assert far not in system.execution.shard
        await promoter.stop()
        # The promoter's clock, and only it, goes on by some minutes.
        promoter._now_ms = lambda: clock() + 6 * 60_000
        await promoter.run_once()
        await on_shard(system, far)
        sent = [i for frame in system.execution.frames for i in frame.items if i.task_id == far]
        assert len(sent) == 1
        assert sent[0].ready_time_ms == (await shown(node, far)).next_start_time.ToMilliseconds()
        await promoter.run_once()
        assert (await promoter.run_once()) is None
        # What was near from the beginning has never passed through the promoter.
        assert [i.task_id for frame in system.execution.frames for i in frame.items].count(near) == 1


async def test_what_became_near_while_nobody_looked_is_dispatched_after_a_restart(database: str) -> None:
    async with cluster(database, sweep_age=600) as system:
        (node,) = system.nodes
        far = [await created(node, start_delay=timedelta(minutes=10, seconds=n)) for n in range(5)]
        retried = await created(node)
        await on_shard(system, retried)
        (directive,) = await node.report(report(retried, 1, FAILED, retry_delay_ms=700_000))
        assert directive.kind == pb.DIRECTIVE_KIND_LATER
        del system.execution.shard[retried]
    async with cluster(database, sweep_age=600) as system:
        (node,) = system.nodes
        clock = node.management.now_ms
        promoter = node.management.promoter
        # Out of office it promotes nothing.
        await until(lambda: node.management.lookout.term, "the office")
        await promoter.stop()
        promoter._now_ms = lambda: clock() + 8 * 60_000
        await promoter.run_once()
        for task_id in (*far, retried):
            await on_shard(system, task_id)
        assert system.execution.shard[retried].attempt == 2


async def test_a_task_that_takes_too_long_is_taken_back_and_expires(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        waiting = await created(node, schedule_to_close_timeout=timedelta(seconds=0.5))
        await on_shard(system, waiting)
        task = await ended(node, waiting)
        assert (task.state, task.error.type) == (task_pb2.TASK_STATE_EXPIRED, "SCHEDULE_TO_CLOSE_TIMEOUT")
        assert waiting not in system.execution.shard
        running, lucky = [
            await created(node, schedule_to_close_timeout=timedelta(seconds=0.5)) for _ in range(2)
        ]
        for task_id in (running, lucky):
            await on_shard(system, task_id)
            system.execution.lease(task_id)
        await until(lambda: cancelling(node, running), "the wish")
        await until(lambda: cancelling(node, lucky), "the wish")
        (stopped, done) = await node.report(
            report(running, 1, CANCELLED, error_type="CANCEL_GRACE_ENDED"), report(lucky, 1, SUCCEEDED)
        )
        assert (stopped.state, done.state) == (task_pb2.TASK_STATE_EXPIRED, task_pb2.TASK_STATE_SUCCEEDED)
        task = await shown(node, running)
        assert task.error.type == "SCHEDULE_TO_CLOSE_TIMEOUT"
        assert task.error.message == "the task took longer than its schedule_to_close_timeout"
        assert not (await shown(node, lucky)).HasField("error")


async def cancelling(node: Node, task_id: bytes) -> bool:
    return (await shown(node, task_id)).state == task_pb2.TASK_STATE_CANCELLING


async def ended(node: Node, task_id: bytes) -> task_pb2.Task:
    async def over() -> task_pb2.Task | None:
        task = await shown(node, task_id)
        return task if task.HasField("end_time") else None

    task: task_pb2.Task = await until(over, "the end")
    return task


async def test_a_task_that_waits_too_long_for_others_expires(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        first = await created(node, ordering_key="k")
        second = await created(node, ordering_key="k", schedule_to_start_timeout=timedelta(seconds=0.3))
        third = await created(node, ordering_key="k")
        task = await ended(node, second)
        assert (task.state, task.error.type) == (task_pb2.TASK_STATE_EXPIRED, "SCHEDULE_TO_START_TIMEOUT")
        assert (await shown(node, third)).state == task_pb2.TASK_STATE_WAITING
        await node.report(report(first, 1, SUCCEEDED))
        await on_shard(system, third)
        (directive,) = await node.report(report(third, 1, TIMED_OUT, error_type="SCHEDULE_TO_START_TIMEOUT"))
        assert directive.state == task_pb2.TASK_STATE_EXPIRED


async def test_the_next_of_a_chain_goes_after_each_kind_of_end(database: str) -> None:
    async with cluster(database, nodes=2) as system:
        first, second = system.nodes
        tasks = [await (first, second)[n % 2].create(ordering_key="k") for n in range(6)]
        assert [task.state for task in tasks] == [3, 1, 1, 1, 1, 1]
        ids = [raw(task) for task in tasks]
        await on_shard(system, ids[0])
        assert system.execution.shard.keys() == {ids[0]}
        await second.report(report(ids[0], 1, LOST))
        (directive,) = await first.report(report(ids[0], 2, FAILED, non_retryable=True))
        assert directive.kind == pb.DIRECTIVE_KIND_DONE
        await on_shard(system, ids[1])
        await second.tasks.CancelTask(task_service_pb2.CancelTaskRequest(task_id=tasks[1].task_id))
        await on_shard(system, ids[2])
        # A waiting one in between is deleted: it is ended, and the one before it goes on.
        await second.tasks.DeleteTask(
            task_service_pb2.DeleteTaskRequest(task_id=tasks[3].task_id, force=True)
        )
        assert ids[4] not in system.execution.shard
        await first.tasks.DeleteTask(task_service_pb2.DeleteTaskRequest(task_id=tasks[2].task_id, force=True))
        await on_shard(system, ids[4])
        await second.report(report(ids[4], 1, SUCCEEDED))
        await on_shard(system, ids[5])


async def test_a_chain_that_nobody_released_is_found(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        first, second = [await created(node, ordering_key="k") for _ in range(2)]
        # As if the process had died between the end and the release.
        node.management.chains.release = lambda keys: None  # type: ignore[method-assign]
        await node.report(report(first, 1, SUCCEEDED))
        await on_shard(system, second)


async def test_a_unique_task_stands_for_those_that_come_after(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        first = await node.create(unique_key="u", data=b"1")
        again = await node.create(unique_key="u", data=b"2")
        assert (again.task_id, again.data) == (first.task_id, b"1")
        error = await refused(node, unique_key="u", unique_policy=task_pb2.UNIQUE_POLICY_REJECT)
        assert isinstance(error, Conflict)
        assert (error.reason, error.metadata["task_id"]) == (Reason.UNIQUE_KEY_TAKEN, first.task_id)
        await node.report(report(raw(first), 1, SUCCEEDED))
        assert (await node.create(unique_key="u")).task_id != first.task_id


async def test_a_repeated_request_gets_the_same_answers_about_keys(database: str) -> None:
    async with cluster(database, nodes=2) as system:
        first, second = system.nodes
        holder = await first.create(unique_key="u")
        reject = task_pb2.UNIQUE_POLICY_REJECT
        tasks = [
            task_pb2.Task(type="t", unique_key="u"),
            task_pb2.Task(type="t", unique_key="u", unique_policy=reject),
            task_pb2.Task(type="t", unique_key="v"),
            task_pb2.Task(type="t", ordering_key="o"),
        ]
        answers = await batch(first, tasks, "r")
        assert (answers[0].task_id, answers[0].existing) == (holder.task_id, True)
        assert answers[1].error.code == grpc.StatusCode.ALREADY_EXISTS.value[0]
        assert [item.existing for item in answers] == [True, False, False, False]
        single = {"unique_key": "u", "request_id": "s"}
        assert (await first.create(**single)).task_id == holder.task_id
        error = await refused(first, unique_key="u", unique_policy=reject, request_id="x")
        await first.report(report(raw(holder), 1, SUCCEEDED))
        assert await batch(second, tasks, "r") == answers
        assert (await second.create(**single)).task_id == holder.task_id
        repeated = await refused(second, unique_key="u", unique_policy=reject, request_id="x")
        assert (repeated.reason, repeated.metadata) == (error.reason, error.metadata)


async def test_a_task_takes_the_place_of_another(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        replace = task_pb2.UNIQUE_POLICY_REPLACE
        first, leased = await created(node, unique_key="u"), await created(node, unique_key="v")
        await on_shard(system, first)
        await on_shard(system, leased)
        system.execution.lease(leased)
        await created(node, unique_key="u", unique_policy=replace)
        after = await created(node, unique_key="v", unique_policy=replace)
        task = await ended(node, first)
        assert task.state == task_pb2.TASK_STATE_CANCELLED
        assert task.cancel_reason.startswith("replaced by ")
        await on_shard(system, after)
        assert (await shown(node, leased)).state == task_pb2.TASK_STATE_CANCELLING


async def test_a_key_that_is_held_until_the_start_is_free_then(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        key = {"unique_key": "u", "unique_scope": task_pb2.UNIQUE_SCOPE_UNTIL_STARTED}
        first = await created(node, **key)
        assert await created(node, **key) == first
        await node.report(report(first, 1, STARTED))
        assert await created(node, **key) != first


async def test_a_key_that_is_held_for_a_time_is_free_when_its_task_is_deleted(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        key: dict[str, Any] = {
            "unique_key": "u",
            "unique_scope": task_pb2.UNIQUE_SCOPE_WINDOW,
            "unique_window": timedelta(hours=1),
        }
        first = await created(node, **key)
        await node.report(report(first, 1, SUCCEEDED))
        assert await created(node, **key) == first
        await delete(node, first)
        second = await created(node, **key)
        assert second != first
        await node.report(report(second, 1, SUCCEEDED))
        await delete(node, second)
        (answer,) = await batch(node, [task_pb2.Task(type="t", **key)])
        assert not answer.existing
        assert (await shown(node, uuid.UUID(answer.task_id).bytes)).state == task_pb2.TASK_STATE_PENDING


async def test_a_repeated_request_whose_task_is_deleted_hears_that_it_was_accepted(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        task = await node.create(request_id="r")
        (before,) = await batch(node, [task_pb2.Task(type="t")], "r")
        for task_id in (task.task_id, before.task_id):
            await node.report(report(uuid.UUID(task_id).bytes, 1, SUCCEEDED))
            await delete(node, uuid.UUID(task_id).bytes)
        error = await refused(node, request_id="r")
        assert (error.reason, error.metadata["task_id"]) == (Reason.TASK_NOT_FOUND, task.task_id)
        assert error.message == (
            f"The request was accepted before; its task {task.task_id} was deleted or has expired since."
        )
        request = task_service_pb2.RunTaskRequest(task=task_pb2.Task(type="t"), request_id="r")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await node.tasks.RunTask(request)
        assert from_rpc_error(caught.value).message == error.message
        # Who only wants ids gets them.
        assert await batch(node, [task_pb2.Task(type="t")], "r") == [before]
        assert await node.management.ledger.open_count() == 0


async def test_a_draining_queue_takes_no_tasks_by_any_way(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        before = await node.create(queue="d", request_id="before")
        drain = queue_service_pb2.DrainQueueRequest(queue="d")
        await node.queues.DrainQueue(drain)
        error = await refused(node, queue="d")
        assert isinstance(error, PreconditionFailed)
        assert error.reason == Reason.QUEUE_DRAINING
        # What was accepted before is answered as before.
        assert (await node.create(queue="d", request_id="before")).task_id == before.task_id
        tasks = [task_pb2.Task(type="t", queue=queue) for queue in ("d", "other", "d")]
        answers = await batch(node, tasks, "r")
        assert [bool(item.task_id) for item in answers] == [False, True, False]
        assert "draining" in answers[0].error.message
        run = task_service_pb2.RunTaskRequest(task=tasks[0])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await node.tasks.RunTask(run)
        assert from_rpc_error(caught.value).reason == Reason.QUEUE_DRAINING
        call = node.tasks.IngestTasks()
        await call.write(task_service_pb2.IngestTasksRequest(tasks=tasks[:1]))
        await call.write(task_service_pb2.IngestTasksRequest(tasks=tasks[1:2]))
        await call.done_writing()
        frames = [frame async for frame in call]
        assert [bool(frame.results[0].task_id) for frame in frames] == [False, True]
        await node.queues.ResumeQueue(queue_service_pb2.ResumeQueueRequest(queue="d"))
        assert (await node.create(queue="d")).task_id
        assert await batch(node, tasks, "r") == answers


async def test_a_full_queue_takes_tasks_when_some_have_ended(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        await set_queue(node, "f", max_open_tasks=3)
        answers = await batch(node, [task_pb2.Task(type="t", queue="f")] * 5)
        assert [bool(item.task_id) for item in answers] == [True, True, True, False, False]
        error = await refused(node, queue="f")
        assert isinstance(error, Overloaded)
        assert error.reason == Reason.QUEUE_FULL
        assert error.retry_delay
        await node.report(report(uuid.UUID(answers[0].task_id).bytes, 1, SUCCEEDED))

        async def taken() -> bool:
            try:
                return bool(await node.create(queue="f"))
            except grpc.aio.AioRpcError:
                return False

        await until(taken, "room in the queue")
        assert (await node.create(queue="other")).task_id


async def test_defaults_of_the_queue_are_shown_with_the_task(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        defaults = queue_service_pb2.TaskDefaults(priority=4, max_attempts=2, heartbeat_timeout=SECONDS_60)
        await set_queue(node, "q", defaults=defaults, retention_days=30)
        task = await node.create(queue="q")
        assert (task.priority, task.max_attempts) == (4, 2)
        for view in (task_pb2.TASK_VIEW_BASIC, task_pb2.TASK_VIEW_FULL):
            seen = await node.get(task.task_id, view)
            assert (seen.priority, seen.heartbeat_timeout.ToTimedelta()) == (4, MINUTE)


async def test_many_with_one_key_at_once_get_one_task(database: str) -> None:
    async with cluster(database, nodes=2) as system:
        made = await asyncio.gather(
            *(system.nodes[n % 2].create(unique_key="u", request_id=f"r{n % 20}") for n in range(40))
        )
        assert len({task.task_id for task in made}) == 1
