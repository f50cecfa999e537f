"""Both clients against a real gRPC server whose answers the tests write."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from fixtures.scripted import DOWN, QUICK, Service, client, collected, service, task
from google.protobuf.message import Message

from meshq.client import (
    CallRetries,
    Client,
    SyncClient,
    Task,
    TaskFailed,
    TaskOutput,
    TaskProgress,
    TaskSpec,
    TaskState,
    TaskView,
)
from meshq.contract.errors import (
    Aborted,
    CallCancelled,
    DeadlineExceeded,
    InvalidRequest,
    MeshqError,
    NotFound,
    Overloaded,
    PreconditionFailed,
    Reason,
    Unavailable,
)
from meshq.contract.status import to_status
from meshq.v1 import (
    queue_service_pb2,
    registry_service_pb2,
    ring_service_pb2,
    task_pb2,
    task_service_pb2,
    worker_service_pb2,
)

__all__ = ["client", "service"]

# Single calls


async def test_create_sends_the_specification(service: Service, client: Any) -> None:
    service.script.append(task())
    found = await client.create("t", {"n": 1}, queue="q", headers={"a": "b"}, max_attempts=2, request_id="r1")
    assert isinstance(found, Task)
    assert (found.task_id, found.state) == ("id", TaskState.PENDING)
    [request] = service.requests
    assert request.request_id == "r1"
    assert request.task.payload.struct_value.fields["n"].number_value == 1
    assert (request.task.queue, dict(request.task.headers), request.task.max_attempts) == ("q", {"a": "b"}, 2)


async def test_a_creation_is_repeated_with_the_same_request_id(service: Service, client: Any) -> None:
    service.script += [DOWN, Overloaded("full", Reason.BACKLOG_FULL, retry_delay=0.01), task()]
    await client.create("t", data=b"\x00", content_type="x/y")
    assert len({request.request_id for request in service.requests}) == 1
    assert len(service.requests) == 3
    assert service.requests[0].task.data == b"\x00"


@pytest.mark.parametrize("method", ["get", "watch"])
async def test_a_client_that_is_closed_between_two_tries_makes_no_other(
    service: Service, client: Any, method: str
) -> None:
    later = Unavailable("down", retry_delay=0.3)
    service.script += [later, task()]
    service.watches += [[later], [task_service_pb2.WatchTaskResponse(task=task("SUCCEEDED"))]]
    made = client.get("id") if method == "get" else collected(client.watch("id"))
    call = asyncio.ensure_future(made)
    async with asyncio.timeout(5):
        while not service.requests:  # noqa: ASYNC110 - there is nothing to be told by
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    await client.close()
    with pytest.raises((CallCancelled, asyncio.CancelledError)):
        await call
    assert len(service.requests) == 1


async def test_a_channel_that_its_owner_has_closed_is_said_to_be(service: Service) -> None:
    channel = grpc.insecure_channel(service.target)
    with SyncClient(channel=channel) as client:
        channel.close()
        for call in (lambda: client.get("id"), lambda: list(client.watch("id"))):
            with pytest.raises(CallCancelled):
                call()
        with pytest.raises(CallCancelled):
            list(client.create_many([TaskSpec(type="t")]))
    own = grpc.aio.insecure_channel(service.target)
    async with Client(channel=own) as other:
        await own.close()
        for made in (other.get("id"), collected(other.watch("id"))):
            with pytest.raises(CallCancelled):
                await made
        with pytest.raises(CallCancelled):
            await collected(other.create_many([TaskSpec(type="t")]))
    assert service.requests == []


async def test_errors_have_class_reason_and_fields(service: Service, client: Any) -> None:
    service.script.append(InvalidRequest.field("task.type", "must not be empty"))
    with pytest.raises(InvalidRequest) as caught:
        await client.create("")
    assert caught.value.reason is Reason.INVALID_FIELD
    assert caught.value.violations[0].field == "task.type"
    service.script.append(NotFound("no task id", Reason.TASK_NOT_FOUND, task_id="id"))
    with pytest.raises(NotFound) as missing:
        await client.get("id")
    assert missing.value.metadata == {"task_id": "id"}


async def test_deleting_is_not_repeated(service: Service, client: Any) -> None:
    service.script += [DOWN, task("SUCCEEDED")]
    with pytest.raises(Unavailable):
        await client.delete("id", force=True)
    assert len(service.requests) == 1
    assert service.requests[0].force
    service.script[0] = PreconditionFailed("open", Reason.TASK_NOT_ENDED)
    with pytest.raises(PreconditionFailed):
        await client.delete("id")


async def test_an_absent_server_is_unavailable_within_the_timeout() -> None:
    async with Client("127.0.0.1:1", retry=QUICK) as client:
        with pytest.raises((Unavailable, DeadlineExceeded)):
            await client.get("id", timeout=0.3)
    with (
        SyncClient("127.0.0.1:1", retry=CallRetries(maximum_attempts=1)) as other,
        pytest.raises(Unavailable),
    ):
        other.get("id")


async def test_reads(service: Service, client: Any) -> None:
    service.script.append(task("SUCCEEDED"))
    assert (await client.get("id", view=TaskView.BASIC)).succeeded
    assert service.requests[-1].view == task_pb2.TASK_VIEW_BASIC
    service.script.append(task_service_pb2.BatchGetTasksResponse(tasks=[task()], missing_task_ids=["other"]))
    found = await client.get_many(["id", "other"])
    assert ([item.task_id for item in found.tasks], found.missing) == (["id"], ("other",))
    service.script.append(task("CANCELLING", cancel_reason="enough"))
    assert (await client.cancel("id", "enough")).cancel_reason == "enough"


async def test_lists_are_read_page_by_page(service: Service, client: Any) -> None:
    service.script += [
        task_service_pb2.ListTasksResponse(tasks=[task(), task()], next_page_token="more"),
        DOWN,
        task_service_pb2.ListTasksResponse(tasks=[task()]),
    ]
    found = await collected(client.list(states=[TaskState.PENDING], type="t", queue="q", page_size=2))
    assert len(found) == 3
    assert [request.page_token for request in service.requests] == ["", "more", "more"]
    assert list(service.requests[0].states) == [task_pb2.TASK_STATE_PENDING]
    service.script.append(task_service_pb2.ListTasksResponse(tasks=[task()], next_page_token="next"))
    assert (await client.list_page("this", queue="q")).next_token == "next"


async def test_the_mesh_is_shown(service: Service, client: Any) -> None:
    queue = queue_service_pb2.Queue(queue="q", arrival_rate=1.5, complete=True)
    queue.counts.pending = 3
    service.script.append(queue_service_pb2.ListQueuesResponse(queues=[queue]))
    [shown] = await collected(client.queues())
    assert (shown.queue, shown.counts.pending, shown.oldest_pending_age) == ("q", 3, None)
    service.script.append(queue)
    assert (await client.queue("q")).arrival_rate == 1.5

    worker = worker_service_pb2.Worker(
        worker_id="w",
        mode=worker_service_pb2.WORKER_MODE_SESSION,
        state=worker_service_pb2.WORKER_STATE_ACTIVE,
    )
    service.script.append(worker_service_pb2.ListWorkersResponse(workers=[worker]))
    assert [item.mode for item in await collected(client.workers())] == ["SESSION"]
    service.script.append(worker)
    assert (await client.worker("w")).state == "ACTIVE"

    service.script.append(
        registry_service_pb2.ListServicesResponse(
            services=[registry_service_pb2.Service(service="s", component="c", instances=2)]
        )
    )
    assert (await client.services())[0].instances == 2
    service.script.append(
        registry_service_pb2.ListInstancesResponse(
            instances=[
                registry_service_pb2.Instance(
                    instance_id="i", state=registry_service_pb2.INSTANCE_STATE_STALE
                )
            ]
        )
    )
    assert (await client.instances("c"))[0].state == "STALE"
    service.script.append(
        ring_service_pb2.ListShardsResponse(
            ring_version=7,
            shards=[ring_service_pb2.Shard(shard="s1", state=ring_service_pb2.SHARD_STATE_DRAINING)],
        )
    )
    ring = await client.shards()
    assert (ring.version, ring.shards[0].state) == (7, "DRAINING")
    service.script += [ring_service_pb2.Shard(shard="s2", keys=4)] * 5
    assert (await client.add_shard("s2", "h:1", 2)).keys == 4
    await client.update_shard("s2", weight=3)
    await client.drain_shard("s2")
    await client.activate_shard("s2")
    await client.remove_shard("s2", force=True)
    added, changed, *_, removed = service.requests[-5:]
    assert (added.shard.shard, added.shard.address, added.shard.weight) == ("s2", "h:1", 2)
    assert (list(changed.update_mask.paths), changed.shard.weight, removed.force) == (["weight"], 3, True)


# Waiting for an end


async def test_run_waits_in_several_calls(service: Service, client: Any) -> None:
    done = task("SUCCEEDED")
    done.result.struct_value.fields["word_count"].number_value = 3
    service.script += [DOWN, task("PENDING"), task("RUNNING"), done]
    found = await client.run("word_count", "word1 word2 word3")
    assert found.result == {"word_count": 3}
    created, repeated, *waits = service.requests
    assert created.request_id == repeated.request_id
    assert [wait.task_id for wait in waits] == ["id", "id"]


async def test_a_failure_is_an_answer_unless_checked(service: Service, client: Any) -> None:
    failed = task("FAILED")
    failed.error.type = "ValueError"
    service.script += [failed, failed]
    assert (await client.run(task_id="id")).error.type == "ValueError"
    with pytest.raises(TaskFailed, match="ValueError"):
        await client.run("t", check=True)


async def test_run_gives_up_with_the_id(service: Service, client: Any) -> None:
    service.script += [task("RUNNING")] * 2
    with pytest.raises(DeadlineExceeded) as caught:
        await client.run("t", timeout=0.0)
    assert caught.value.metadata["task_id"] == "id"


async def test_run_needs_a_type_or_an_id(client: Any) -> None:
    for options in ({}, {"type": "t", "task_id": "id"}):
        with pytest.raises(InvalidRequest, match="task_id"):
            await client.run(**options)


# Watching


def event(**fields: Any) -> task_service_pb2.WatchTaskResponse:
    return task_service_pb2.WatchTaskResponse(**fields)


async def test_a_watch_goes_on_over_breaks_until_the_end(service: Service, client: Any) -> None:
    progress = task_pb2.TaskProgress(attempt=1, fraction=0.5)
    output = task_pb2.TaskOutput(attempt=1, stream="log", chunk=b"hello\n")
    service.watches += [
        [event(task=task("PENDING")), event(keepalive=task_pb2.Keepalive()), DOWN],
        [event(task=task("PENDING")), event(progress=progress), Aborted("slow", Reason.WATCH_TOO_SLOW)],
        [event(task=task("RUNNING")), event(output=output)],
        [event(task=task("SUCCEEDED"))],
    ]
    events = await collected(client.watch("id"))
    kinds = [item.state if isinstance(item, Task) else type(item) for item in events]
    assert kinds == ["PENDING", TaskProgress, "RUNNING", TaskOutput, "SUCCEEDED"]
    assert events[3].text == "hello\n"
    assert len(service.requests) == 4


async def test_a_watch_of_nothing_is_an_error(service: Service, client: Any) -> None:
    service.watches.append([NotFound("no such task")])
    with pytest.raises(NotFound):
        await collected(client.watch("id"))


# Bulk creation


class Store:
    """Takes frames as a server does: once for each request id. Breaks as told."""

    def __init__(self, service: Service, breaks: tuple[int, ...] = (), refuse: str = "") -> None:
        self.service = service
        self.tasks: dict[str, list[str]] = {}
        self.breaks = set(breaks)
        self.refuse = refuse
        self.taken = 0
        self.streams = 0
        service.streams = self.ingest

    async def ingest(self, frames: Any) -> AsyncIterator[Message | MeshqError]:
        self.streams += 1
        number = itertools.count()
        async for frame in frames:
            self.tasks.setdefault(frame.request_id, [task.type for task in frame.tasks])
            self.taken += 1
            if self.taken in self.breaks:
                yield DOWN  # After it was stored, before it is answered.
                return
            yield task_service_pb2.IngestTasksResponse(
                frame=next(number), results=map(self.result, frame.tasks)
            )

    def result(self, task: task_pb2.Task) -> task_service_pb2.CreateTaskResult:
        if task.type == self.refuse:
            status = to_status(InvalidRequest.field("task.type", "must be known"))
            return task_service_pb2.CreateTaskResult(error=status)
        return task_service_pb2.CreateTaskResult(task_id=f"id-{task.type}")


async def test_many_are_created_in_order(service: Service, client: Any) -> None:
    store = Store(service, refuse="t7")
    created = await collected(client.create_many(TaskSpec(type=f"t{n}") for n in range(4_500)))
    assert [item.index for item in created] == list(range(4_500))
    assert [item.task_id for item in created[:3]] == ["id-t0", "id-t1", "id-t2"]
    assert isinstance(created[7].error, InvalidRequest)
    assert sum(item.error is not None for item in created) == 1
    assert all(len(tasks) <= 1_000 for tasks in store.tasks.values())
    assert store.streams == 1


async def test_unanswered_frames_are_sent_again_and_make_nothing_twice(service: Service, client: Any) -> None:
    store = Store(service, breaks=(1, 4, 9))
    created = await collected(client.create_many((TaskSpec(type=f"t{n}") for n in range(10_000)), window=4))
    assert [item.task_id for item in created] == [f"id-t{n}" for n in range(10_000)]
    stored = [kind for tasks in store.tasks.values() for kind in tasks]
    assert sorted(stored) == sorted(f"t{n}" for n in range(10_000))
    assert store.streams == 4


async def test_a_frame_that_is_refused_as_a_whole_is_an_error(service: Service, client: Any) -> None:
    async def refuse(frames: Any) -> AsyncIterator[Message | MeshqError]:
        await anext(frames)
        yield InvalidRequest.field("tasks", "must not be these")

    service.streams = refuse
    with pytest.raises(InvalidRequest, match="must not be these"):
        await collected(client.create_many([TaskSpec(type="t")]))


async def test_no_tasks_are_no_error(service: Service, client: Any) -> None:
    Store(service)
    assert await collected(client.create_many([])) == []


async def test_a_slow_source_is_not_kept_waiting(service: Service) -> None:
    Store(service)
    told = asyncio.Event()

    async def source() -> AsyncIterator[TaskSpec]:
        for number in range(3):
            yield TaskSpec(type=f"t{number}")
            await told.wait()  # The next one comes only when this one was answered.
            told.clear()

    async with Client(service.target) as client, asyncio.timeout(10):
        created = []
        async for item in client.create_many(source()):
            created.append(item.task_id)
            told.set()
    assert created == ["id-t0", "id-t1", "id-t2"]


async def test_an_error_of_the_source_comes_after_what_was_created(service: Service, client: Any) -> None:
    store = Store(service)

    def source() -> Any:
        yield TaskSpec(type="t0")
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        await collected(client.create_many(source()))
    assert len(store.tasks) <= 1


async def test_what_closing_a_client_cancels_is_not_repeated(service: Service, client: Any) -> None:
    streams = asyncio.Semaphore(0)

    async def unanswered(_: Any) -> AsyncIterator[Message]:
        streams.release()
        await asyncio.Event().wait()
        yield task_service_pb2.IngestTasksResponse()

    service.streams = unanswered
    creation = asyncio.ensure_future(collected(client.create_many([TaskSpec(type="t")])))
    await asyncio.wait_for(streams.acquire(), 5)
    await client.close()
    with pytest.raises((CallCancelled, asyncio.CancelledError)):
        await creation
    assert streams.locked()


async def test_leaving_a_bulk_creation_early_leaves_nothing_running(service: Service) -> None:
    Store(service)
    before = asyncio.all_tasks()
    async with Client(service.target) as client:
        items = client.create_many(TaskSpec(type="t") for _ in range(100_000))
        async for item in items:
            if item.index == 10:
                break
        await items.aclose()
    assert {task for task in asyncio.all_tasks() - before if "Bulk" in repr(task)} == set()
