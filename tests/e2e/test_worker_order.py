"""The whole system: in which order a worker with a session starts the tasks of a backlog."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from meshq.client import SyncClient, TaskSpec
from meshq.local.system import System
from meshq.worker import Worker

SECONDS = 60.0


class Starts:
    """What a worker has started, in order, and who waits for that."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._news = threading.Condition()

    def add(self, name: str) -> None:
        with self._news:
            self.seen.append(name)
            self._news.notify_all()

    def until(self, count: int, name: str | None = None) -> None:
        """Wait for so many starts, of a name or at all."""
        with self._news:
            assert self._news.wait_for(lambda: self._count(name) >= count, SECONDS), len(self.seen)

    def _count(self, name: str | None) -> int:
        return len(self.seen) if name is None else self.seen.count(name)


@pytest.fixture
def queue(client: SyncClient) -> Iterator[str]:
    """A queue of its own, which is left empty."""
    name = f"order-{uuid.uuid4().hex[:8]}"
    yield name
    client.purge_queue(name)


@contextmanager
def at_work(system: System, queue: str, seconds: float, slots: int) -> Iterator[Starts]:
    """A worker whose handler notes its input and takes so long."""
    starts = Starts()
    worker = Worker(system.edge, queues=[queue], slots=slots, drain_timeout=5.0)

    @worker.task("note")
    async def note(name: str) -> None:
        starts.add(name)
        await asyncio.sleep(seconds)

    worker.start()
    try:
        yield starts
    finally:
        worker.stop()
        worker.wait()


def create(client: SyncClient, specs: list[TaskSpec]) -> None:
    assert all(created.error is None for created in client.create_many(specs))


def test_a_backlog_of_one_key_delays_another_key_by_a_few_frames(
    system: System, client: SyncClient, queue: str
) -> None:
    backlog = TaskSpec(type="note", payload="A", queue=queue, fairness_key="A")
    create(client, [backlog] * 3_000)
    with at_work(system, queue, seconds=0.01, slots=10) as starts:
        starts.until(200)
        client.create("note", "B", queue=queue, fairness_key="B")
        before = len(starts.seen)
        starts.until(1, "B")
        between = starts.seen.index("B") - before
    assert between < 1_500, "B is a task among others: it has waited for half of the backlog"


def test_a_session_gets_higher_priorities_first_and_equal_ones_in_order(
    system: System, client: SyncClient, queue: str
) -> None:
    # A queue with a limit as a whole lives on one shard, where the order is exact.
    client.create_queue(queue, max_running=100)
    made = [(priority, f"{priority}-{number}") for number in range(30) for priority in (0, 9, 5)]
    create(client, [TaskSpec(type="note", payload=name, queue=queue, priority=nr) for nr, name in made])
    with at_work(system, queue, seconds=0.0, slots=1) as starts:
        starts.until(len(made))
    assert starts.seen == [name for _, name in sorted(made, key=lambda item: -item[0])]
