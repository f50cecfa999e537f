"""Watches of queues: what they begin with, what they say of changes, how they end."""

from typing import Any

import grpc
import pytest
from fixtures.failures import failure
from fixtures.managed_queues import create
from fixtures.management import Node, cluster, until
from google.protobuf.duration_pb2 import Duration

from meshq.contract.errors import InvalidRequest, Reason
from meshq.v1.queue_service_pb2 import DeleteQueueRequest, DrainQueueRequest, WatchQueuesRequest


def watch(node: Node, *names: str, seconds: float = 0.5) -> Any:
    interval = Duration(nanos=int(seconds * 1e9))
    return node.queues.WatchQueues(WatchQueuesRequest(queues=names, interval=interval))


async def test_a_watch_begins_with_what_is_there_and_goes_on_with_what_changes(database: str) -> None:
    async with cluster(database, nodes=2) as system:
        one, other = system.nodes
        await create(one, "a")
        await create(one, "b")
        call = watch(other)
        first = await call.read()
        assert [item.queue for item in first.queues] == ["a", "b"]
        assert first.keepalive_interval.seconds == 20
        await one.queues.DrainQueue(DrainQueueRequest(queue="b", actor="ann"))
        second = await call.read()
        assert [(item.queue, item.drain.actor) for item in second.queues] == [("b", "ann")]
        await one.create(queue="c")
        third = await call.read()
        assert [item.queue for item in third.queues] == ["c"]
        await one.queues.DeleteQueue(DeleteQueueRequest(queue="a"))
        fourth = await call.read()
        assert fourth.deleted_queues == ["a"]
        call.cancel()


async def test_a_watch_of_names_sees_only_these_also_when_they_come_later(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        await create(node, "a")
        call = watch(node, "b")
        assert not (await call.read()).queues
        await create(node, "b", retentionDays=1)
        assert [item.retention_days for item in (await call.read()).queues] == [1]
        call.cancel()


async def test_watchers_share_a_reader_and_nothing_is_read_when_they_have_gone(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        await create(node)
        watches = node.management.queue_watches
        calls = [watch(node), watch(node, "q"), watch(node, seconds=0.6)]
        for call in calls:
            assert [item.queue for item in (await call.read()).queues] == ["q"]
        assert watches.readers == 2
        for call in calls:
            call.cancel()
        await until(lambda: not watches.readers, "the end of the readers")


async def test_a_watch_says_that_it_lives_and_ends_with_its_instance(database: str) -> None:
    async with cluster(database) as system:
        (node,) = system.nodes
        await create(node)
        node.management.queue_watches.keepalive = 0.05
        call = watch(node)
        assert (await call.read()).queues
        assert not (await call.read()).queues
        await node.management.drain()
        error = await failure(_to_the_end(call))
        assert error.reason == Reason.DRAINING
        assert (await failure(_to_the_end(watch(node)))).reason == Reason.DRAINING


async def _to_the_end(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (WatchQueuesRequest(queues=["q"] * 101), "queues"),
        (WatchQueuesRequest(queues=["q", "?"]), "queues[1]"),
        (WatchQueuesRequest(interval=Duration(nanos=400_000_000)), "interval"),
        (WatchQueuesRequest(interval=Duration(seconds=61)), "interval"),
        (WatchQueuesRequest(interval=Duration(nanos=2 * 10**9)), "interval"),
    ],
)
async def test_a_bad_watch_is_refused(database: str, request_: WatchQueuesRequest, field: str) -> None:
    async with cluster(database) as system:
        error = await failure(_to_the_end(system.nodes[0].queues.WatchQueues(request_)))
        assert isinstance(error, InvalidRequest)
        assert error.violations[0].field == field
