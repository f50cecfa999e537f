"""Watches by filter: creations and changes of many tasks, over instances, and resumed."""

import uuid
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from fixtures.management import Cluster, Node, cluster, report, until

from meshq.contract.errors import InvalidRequest, MeshqError, Reason
from meshq.contract.status import from_rpc_error
from meshq.management.model.pages import resume_token
from meshq.management.model.reports import Start
from meshq.management.watch import feed
from meshq.v1 import task_pb2
from meshq.v1 import task_service_pb2 as pb

PENDING = task_pb2.TASK_STATE_PENDING
WAITING = task_pb2.TASK_STATE_WAITING
RUNNING = task_pb2.TASK_STATE_RUNNING
CANCELLED = task_pb2.TASK_STATE_CANCELLED
DONE = task_pb2.TASK_STATE_SUCCEEDED
STARTED = task_pb2.ATTEMPT_OUTCOME_UNSPECIFIED
SUCCEEDED = task_pb2.ATTEMPT_OUTCOME_SUCCEEDED


class Watch:
    """An open watch and what it has shown."""

    def __init__(self, node: Node, token: bytes = b"", **filters: Any) -> None:
        request = pb.WatchTasksRequest(filter=pb.TaskFilter(**filters), resume_token=token)
        self.call: Any = node.tasks.WatchTasks(request, timeout=30)
        self.token = token

    async def begun(self) -> "Watch":
        assert (await self._read()).keepalive.interval.seconds
        return self

    async def next(self) -> task_pb2.Task:
        while True:
            response = await self._read()
            if response.WhichOneof("event") == "task":
                return response.task

    async def shown(self, count: int) -> list[tuple[str, int]]:
        tasks = [await self.next() for _ in range(count)]
        return [(task.task_id, int(task.state)) for task in tasks]

    async def _read(self) -> pb.WatchTasksResponse:
        response: pb.WatchTasksResponse = await self.call.read()
        assert response.resume_token
        self.token = response.resume_token
        return response


async def linked(system: Cluster) -> None:
    """Wait until all instances send each other their creations."""
    watching = system.nodes[0].management
    await until(lambda: all(link.heard_ms for link in watching.listening.links()))


async def refused(watch: Watch) -> MeshqError:
    async def read_all() -> None:
        while await watch.call.read() is not grpc.aio.EOF:
            pass

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read_all()
    return from_rpc_error(caught.value)


@pytest.mark.parametrize("nodes", [1, 2])
async def test_creations_and_changes_are_shown_wherever_they_happen(database: str, nodes: int) -> None:
    async with cluster(database, nodes=nodes) as system:
        watching, working = system.nodes[0], system.nodes[-1]
        await working.create(queue="q")
        watch = await Watch(watching, queue="q", labels=["env=prod"]).begun()
        await linked(system)
        await working.create(queue="q", labels={"env": "test"})
        await working.create(queue="other", labels={"env": "prod"})
        task = await working.create(queue="q", labels={"env": "prod", "a": "b"}, data=b"input", priority=3)
        created = await watch.next()
        assert (created.task_id, created.state, created.attempt) == (task.task_id, PENDING, 1)
        assert dict(created.labels) == {"env": "prod", "a": "b"}
        assert (created.max_attempts, created.priority, created.data) == (3, 3, b"")
        task_id = uuid.UUID(task.task_id).bytes
        await working.report(report(task_id, 1, STARTED))
        await working.report(report(task_id, 1, SUCCEEDED))
        running, done = await watch.next(), await watch.next()
        assert (running.state, done.state, done.worker_id) == (RUNNING, DONE, "w-1")
        assert done.labels == created.labels
        watch.call.cancel()
        await until(lambda: not watching.management.bus.creations_wanted)


async def test_the_states_of_a_filter_select_changes_into_them(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        watch = await Watch(node, states=[CANCELLED], type="t").begun()
        first, second = await node.create(), await node.create()
        await node.create(type="u")
        for task in (first, second):
            await node.tasks.CancelTask(pb.CancelTaskRequest(task_id=task.task_id))
        assert await watch.shown(2) == [(first.task_id, CANCELLED), (second.task_id, CANCELLED)]


async def test_a_chain_is_shown_as_it_moves(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        watch = await Watch(node).begun()
        first, second = [await node.create(ordering_key="k") for _ in range(2)]
        assert await watch.shown(2) == [(first.task_id, PENDING), (second.task_id, WAITING)]
        await node.report(report(uuid.UUID(first.task_id).bytes, 1, SUCCEEDED))
        assert await watch.shown(2) == [(first.task_id, DONE), (second.task_id, PENDING)]


async def test_an_instance_that_comes_later_is_heard(database: str) -> None:
    async with cluster(database) as system:
        watch = await Watch(system.nodes[0]).begun()
        other = await system.add_node()
        task = await other.create()
        assert await watch.shown(1) == [(task.task_id, PENDING)]


async def test_a_broken_watch_goes_on_where_it_was(database: str) -> None:
    async with cluster(database, nodes=2) as system:
        node, other = system.nodes
        watch = await Watch(node).begun()
        before = await node.create()
        assert await watch.shown(1) == [(before.task_id, PENDING)]
        watch.call.cancel()
        during = await other.create()
        done = uuid.UUID(before.task_id).bytes
        await other.report(report(done, 1, SUCCEEDED))
        again = Watch(node, watch.token)
        assert sorted(await again.shown(2)) == sorted([(before.task_id, DONE), (during.task_id, PENDING)])
        after = await node.create()
        assert await again.shown(1) == [(after.task_id, PENDING)]


async def test_a_watch_that_breaks_before_its_first_event_misses_nothing(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        now_ms = node.management.now_ms
        watch = await Watch(node).begun()
        # Its write was under way when the watch began, or comes from an instance with a clock that is behind.
        row = await node.create(data=b"x")
        task_id = uuid.UUID(row.task_id).bytes
        early = now_ms() - 2_000
        await node.management.ledger.start_attempts([Start(task_id, 1, early, "w-1")], early)
        watch.call.cancel()
        assert await Watch(node, watch.token).shown(1) == [(row.task_id, RUNNING)]


async def test_what_a_broken_stream_between_instances_lost_is_read(database: str) -> None:
    async with cluster(database, nodes=2) as system:
        node, other = system.nodes
        watch = await Watch(node).begun()
        await linked(system)
        await node.management.listening.stop()
        task = await other.create()
        await other.report(report(uuid.UUID(task.task_id).bytes, 1, SUCCEEDED))
        await node.management.listening.start()
        # How it stood in between may be read too, if the stream broke late.
        seen = await watch.shown(1)
        if seen == [(task.task_id, PENDING)]:
            seen = await watch.shown(1)
        assert seen == [(task.task_id, DONE)]


async def test_a_token_waits_for_instances_that_are_not_heard(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster(database, nodes=2) as system:
        node, _ = system.nodes
        watch = await Watch(node).begun()
        begun = watch.token
        await linked(system)
        (link,) = node.management.listening.links()
        monkeypatch.setattr(link, "_now_ms", lambda: 1)
        link.heard_ms = 1
        await node.create()
        await watch.next()
        assert watch.token == begun


@pytest.mark.parametrize("age_ms", [11 * 60_000, 60_000])
async def test_too_much_is_not_resumed(database: str, age_ms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_MAX_READ", 2)
    async with cluster(database) as system:
        (node,) = system.nodes
        for _ in range(3):
            await node.create()
        error = await refused(Watch(node, resume_token(node.management.now_ms() - age_ms)))
        assert error.reason == Reason.RESUME_LOST
        assert error.retryable


async def test_a_slow_reader_is_sent_away(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        watch = await Watch(node).begun()
        task_id = uuid.UUID((await node.create()).task_id).bytes
        row = (await node.management.ledger.get_tasks([task_id], full=False))[task_id]
        node.management.bus.publish_rows([row] * 10_001)
        assert (await refused(watch)).reason == Reason.WATCH_TOO_SLOW


async def test_a_silent_watch_says_that_it_lives_and_how_far_it_is(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        node.management.feed.keepalive = 0.05
        watch = await Watch(node).begun()
        begun = watch.token

        async def further() -> bool:
            await watch._read()
            return watch.token > begun

        await until(further)


async def test_a_stopping_instance_sends_watches_away(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        watch = await Watch(node).begun()
        await node.management.drain()
        assert (await refused(watch)).reason == Reason.DRAINING


async def test_nobody_watching_costs_no_reading(database: str) -> None:
    async with cluster(database, nodes=2) as system:
        for node in system.nodes:
            await node.create()
            assert not node.management.commits.wanted
            assert not node.management.bus.busy


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (lambda: pb.WatchTasksRequest(resume_token=b"x"), "resume_token"),
        (lambda: pb.WatchTasksRequest(resume_token=bytes(12)), "resume_token"),
        (lambda: pb.WatchTasksRequest(filter=pb.TaskFilter(queue="?")), "filter.queue"),
        (lambda: pb.WatchTasksRequest(filter=pb.TaskFilter(labels=["x"])), "filter.labels[0]"),
        (lambda: pb.WatchTasksRequest(filter=pb.TaskFilter(states=[11])), "filter.states[0]"),  # type: ignore[list-item]
    ],
)
async def test_a_bad_watch_names_its_field(
    database: str, request_: Callable[[], pb.WatchTasksRequest], field: str
) -> None:
    async with cluster(database) as system:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await system.nodes[0].tasks.WatchTasks(request_()).read()
        error = from_rpc_error(caught.value)
        assert isinstance(error, InvalidRequest)
        assert [item.field for item in error.violations] == [field]
