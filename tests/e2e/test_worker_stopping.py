"""The whole system: how handlers of a worker's own are stopped, by cancellations and timeouts."""

from __future__ import annotations

import asyncio
import importlib
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fixtures.worker import TASKS

from meshq.client import SyncClient, Task, TaskState
from meshq.local.system import System
from meshq.worker import FinishLater, SyncCompleter, TaskCancelled, TaskContext, Worker

SECONDS = 30.0
LONG = 60.0

Eventually = Callable[[Callable[[], Any], Callable[[Any], bool]], Any]


class Bench:
    """A worker in this process on queues of its own."""

    def __init__(self, system: System, client: SyncClient, **options: Any) -> None:
        self.client = client
        self.queue = f"own-{uuid.uuid4().hex[:8]}"
        options.setdefault("queues", [self.queue])
        self.worker = Worker(system.edge, drain_timeout=0.5, **options)
        self.begun = threading.Event()
        self.stopped = threading.Event()

    def create(self, kind: str, payload: Any = None, **options: Any) -> Task:
        return self.client.create(kind, payload if payload is not None else {}, queue=self.queue, **options)

    def ended(self, task: Task) -> Task:
        return self.client.run(task_id=task.task_id, timeout=SECONDS)

    def outcomes(self, task: Task) -> list[tuple[str, str]]:
        return [
            (attempt.outcome.value, attempt.error.type if attempt.error else "")
            for attempt in self.client.attempts(task.task_id)
        ]


@pytest.fixture(scope="module")
def own_worker(
    system: System, client: SyncClient, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "sample_tasks.py").write_text(TASKS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        made = Bench(system, client, processes=1)
        add_stoppable(made)
        add_others(made, system)
        made.worker.registry.add("process", importlib.import_module("sample_tasks").linger, processes=True)
        made.worker.start()
        made.ended(made.create("left"))
        yield made
        made.worker.stop()
        made.worker.wait()
        del sys.modules["sample_tasks"]


@pytest.fixture
def bench(own_worker: Bench) -> Bench:
    """A worker that is at work."""
    own_worker.begun.clear()
    own_worker.stopped.clear()
    return own_worker


def add_stoppable(made: Bench) -> None:
    """Handlers that run until they are stopped."""

    @made.worker.task("loop")
    async def in_loop() -> None:
        made.begun.set()
        try:
            await asyncio.sleep(LONG)
        finally:
            made.stopped.set()

    @made.worker.task("tidy")
    async def tidy(how: str) -> str:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            if how == "succeed":
                return "finished nevertheless"
            raise TaskCancelled("tidied up") from None
        return "not stopped"

    @made.worker.task("thread")
    def in_thread(context: TaskContext) -> None:
        while not context.wait_cancelled(0.1):
            context.heartbeat()
        made.stopped.set()
        context.check_cancelled()

    @made.worker.task("silent")
    def silent(context: TaskContext) -> None:
        context.wait_cancelled(LONG)
        made.stopped.set()


def add_others(made: Bench, system: System) -> None:
    """Handlers that end by themselves."""

    @made.worker.task("kept", auto_heartbeat=True)
    def kept(seconds: float, context: TaskContext) -> str:
        context.wait_cancelled(seconds)
        return "kept"

    @made.worker.task("hasty")
    def hasty(context: TaskContext) -> None:
        with SyncCompleter(system.edge) as completer:
            completer.succeed(context.lease_token, "completed first")
        raise FinishLater(60)

    @made.worker.task("left")
    def left(context: TaskContext) -> float | None:
        return context.time_left()


def running(bench: Bench, eventually: Eventually, kind: str, payload: Any = None, **options: Any) -> Task:
    task = bench.create(kind, payload, **options)
    eventually(lambda: bench.client.get(task.task_id), lambda found: found.state is TaskState.RUNNING)
    return task


@pytest.mark.parametrize(
    ("kind", "payload"), [("loop", None), ("thread", None), ("process", {"cooperative": True})]
)
def test_a_running_task_is_cancelled(bench: Bench, eventually: Eventually, kind: str, payload: Any) -> None:
    task = running(bench, eventually, kind, payload)
    bench.client.cancel(task.task_id, "enough")
    ended = bench.ended(task)
    assert (ended.state, ended.cancel_reason) == (TaskState.CANCELLED, "enough")
    assert [outcome for outcome, _ in bench.outcomes(task)] == ["CANCELLED"]


def test_a_process_that_does_not_listen_is_killed_and_replaced(bench: Bench, eventually: Eventually) -> None:
    deaf = running(bench, eventually, "process", {"cooperative": False})
    bench.client.cancel(deaf.task_id)
    assert bench.ended(deaf).state is TaskState.CANCELLED
    assert bench.outcomes(deaf) == [("CANCELLED", "CANCELLED")]  # Confirmed before the grace was over.
    listening = running(bench, eventually, "process", {"cooperative": True})
    bench.client.cancel(listening.task_id)
    assert bench.ended(listening).state is TaskState.CANCELLED


def test_what_a_handler_makes_of_its_cancellation_counts(bench: Bench, eventually: Eventually) -> None:
    tidy, finish = (running(bench, eventually, "tidy", {"how": how}) for how in ("tidy", "succeed"))
    for task in (tidy, finish):
        bench.client.cancel(task.task_id)
    assert bench.ended(tidy).state is TaskState.CANCELLED
    ended = bench.ended(finish)
    assert (ended.state, ended.result) == (TaskState.SUCCEEDED, "finished nevertheless")


@pytest.mark.parametrize("kind", ["loop", "thread"])
def test_an_attempt_that_takes_too_long_is_stopped(bench: Bench, kind: str) -> None:
    ended = bench.ended(bench.create(kind, start_to_close_timeout=0.5, max_attempts=1))
    assert ended.state is TaskState.FAILED
    assert bench.outcomes(ended) == [("TIMED_OUT", "START_TO_CLOSE_TIMEOUT")]
    assert bench.stopped.wait(SECONDS)


def test_a_handler_that_is_silent_is_stopped(bench: Bench) -> None:
    ended = bench.ended(bench.create("silent", heartbeat_timeout=0.5, max_attempts=1))
    assert ended.state is TaskState.FAILED
    assert bench.outcomes(ended) == [("TIMED_OUT", "HEARTBEAT_TIMEOUT")]
    assert bench.stopped.wait(SECONDS)


def test_signs_of_life_keep_a_handler(bench: Bench, eventually: Eventually) -> None:
    kept = bench.create("kept", 1.5, heartbeat_timeout=0.5, max_attempts=1)
    alive = running(bench, eventually, "thread", heartbeat_timeout=0.5, max_attempts=1)
    assert bench.ended(kept).result == "kept"
    bench.client.cancel(alive.task_id)
    assert bench.ended(alive).state is TaskState.CANCELLED


def test_a_task_that_runs_out_of_time_is_stopped(bench: Bench) -> None:
    task = bench.create("loop", schedule_to_close_timeout=3.0)
    assert bench.begun.wait(SECONDS)
    ended = bench.ended(task)
    assert ended.state is TaskState.EXPIRED
    assert ended.error is not None
    assert ended.error.type == "SCHEDULE_TO_CLOSE_TIMEOUT"
    assert bench.stopped.wait(SECONDS)


def test_a_handler_knows_its_deadline(bench: Bench) -> None:
    assert bench.ended(bench.create("left")).result is None
    left = bench.ended(bench.create("left", start_to_close_timeout=50)).result
    assert isinstance(left, float)
    assert 40 < left <= 50
    left = bench.ended(bench.create("left", start_to_close_timeout=50, schedule_to_close_timeout=20)).result
    assert isinstance(left, float)
    assert 10 < left <= 20


def test_a_task_may_be_completed_before_its_handler_leaves_it(bench: Bench) -> None:
    ended = bench.ended(bench.create("hasty", max_attempts=1))
    assert (ended.state, ended.result) == (TaskState.SUCCEEDED, "completed first")
    assert bench.outcomes(ended) == [("SUCCEEDED", "")]


def test_queues_share_a_worker_by_their_weights(system: System, client: SyncClient) -> None:
    name = f"own-{uuid.uuid4().hex[:8]}"
    high, low = f"{name}-high", f"{name}-low"
    ran: list[str] = []
    bench = Bench(system, client, queues={high: 3, low: 1}, slots=1, prefetch=0)

    @bench.worker.task("note")
    def note(context: TaskContext) -> None:
        ran.append(context.queue)

    tasks = [client.create("note", queue=queue) for queue in [low] * 40 + [high] * 40]
    bench.worker.start()
    try:
        for task in tasks:
            bench.ended(task)
    finally:
        bench.worker.stop()
        bench.worker.wait()
    # As long as both have tasks, three of four are of the heavier queue.
    assert 20 <= ran[:36].count(high) <= 32, ran
