"""The whole system: what is left of a task when its worker goes."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator

import pytest

from meshq.client import SyncClient, TaskProgress, TaskState
from meshq.local.system import System
from meshq.worker import FinishLater, SyncCompleter, TaskContext, Worker

SECONDS = 60.0

Started = Callable[[], "subprocess.Popen[bytes]"]


@pytest.fixture
def queue() -> str:
    return f"own-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def start(system: System, queue: str) -> Iterator[Started]:
    """Starts workers with the built-in tasks on the queue."""
    running: list[subprocess.Popen[bytes]] = []

    def begin() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "meshq.worker", "--tasks", "meshq.tasks", "--queues", queue]
        environment = os.environ | {"MESHQ_TARGET": system.edge}
        running.append(subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL))
        return running[-1]

    yield begin
    for process in running:
        process.kill()
        process.wait()


def test_the_next_worker_goes_on_from_the_checkpoint(client: SyncClient, queue: str, start: Started) -> None:
    task = client.create("steps", {"steps": 10, "seconds": 3.0}, queue=queue)
    process = start()
    for event in client.watch(task.task_id, timeout=SECONDS):
        if isinstance(event, TaskProgress) and event.fraction >= 0.2:
            break
    process.kill()
    start()
    ended = client.run(task_id=task.task_id, timeout=SECONDS)
    assert ended.state is TaskState.SUCCEEDED
    assert isinstance(ended.result, dict)
    assert ended.result["attempt"] == 2
    assert ended.result["resumed_after"] >= 1
    lost, _ = client.attempts(task.task_id)
    assert lost.outcome.value == "LOST"


def test_a_task_that_was_left_to_others_outlives_its_worker(
    system: System, client: SyncClient, queue: str
) -> None:
    worker = Worker(system.edge, queues=[queue], drain_timeout=5.0)
    tokens: list[str] = []

    @worker.task("leave")
    def leave(context: TaskContext) -> None:
        tokens.append(context.lease_token)
        worker.stop()
        raise FinishLater(60)

    task = client.create("leave", queue=queue, max_attempts=1)
    worker.start()
    worker.wait()
    with SyncCompleter(system.edge) as completer:
        assert completer.heartbeat(tokens[0]) is None
        completer.succeed(tokens[0], "by somebody else")
    ended = client.run(task_id=task.task_id, timeout=SECONDS)
    assert (ended.state, ended.result) == (TaskState.SUCCEEDED, "by somebody else")
