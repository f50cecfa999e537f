"""The README's tour with the command line, and a worker that a user wrote."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sysconfig
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from meshq.local.system import System

MESHQ = str(Path(sysconfig.get_path("scripts")) / "meshq")
HANDLERS = """
from meshq.worker import TaskRegistry

registry = TaskRegistry()

@registry.task("greet")
async def greet(name: str) -> str:
    return f"Hello, {name}."

def factorize(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]

registry.add("factorize", factorize, processes=True)
"""

Meshq = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def meshq(system: System) -> Meshq:
    """The command line at the edge."""

    def run(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"MESHQ_TARGET": system.edge}
        done = subprocess.run(
            [MESHQ, *words], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == code, (done.stdout, done.stderr)
        return done

    return run


@pytest.fixture
def own_worker(system: System, tmp_path: Path, eventually: Any, meshq: Meshq) -> Iterator[str]:
    """A worker that serves a module of the current folder on a queue of its own: the queue's name."""
    (tmp_path / "handlers.py").write_text(HANDLERS)
    queue = f"own-{uuid.uuid4().hex[:8]}"
    command = [MESHQ, "worker", "run", "handlers", "--queue", queue, "--id", queue, "--label", "a=b"]
    log = tmp_path / "worker.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=os.environ | {"MESHQ_TARGET": system.edge}, stderr=file
        )
    try:
        eventually(lambda: meshq("worker", "list", "--json").stdout, lambda text: queue in text)
        yield queue
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in log.read_text()


def test_run_create_watch_get_and_list(meshq: Meshq) -> None:
    assert meshq("task", "run", "word_count", "to be or not to be").stdout == '{"word_count": 6}\n'
    task_id = meshq("task", "create", "word_count", "a b c").stdout.strip()
    events = [json.loads(line) for line in meshq("task", "watch", task_id, "--json").stdout.splitlines()]
    assert events[-1]["task"]["result"] == {"word_count": 3}
    assert '{"word_count": 3}' in meshq("task", "get", task_id).stdout
    assert task_id in meshq("task", "list", "--type", "word_count", "--since", "1h").stdout
    first = meshq("--json", "task", "list", "--limit", "1").stdout
    assert len(first.splitlines()) == 1


def test_cancel_and_delete(meshq: Meshq) -> None:
    task_id = meshq("task", "create", "nobody_serves_this").stdout.strip()
    told = meshq("task", "delete", task_id, code=5).stderr
    assert (
        told == f"Error: Cannot delete task {task_id}: the task is open; cancel it first, or use --force.\n"
    )
    meshq("task", "cancel", task_id, "--reason", "enough")
    assert "CANCELLED" in meshq("task", "run", task_id, code=1).stderr
    meshq("task", "delete", task_id)
    assert "meshq task list" in meshq("task", "get", task_id, code=3).stderr


def test_a_task_is_completed_from_outside(meshq: Meshq, hand: Any) -> None:
    paid, refused = hand.create(), hand.create()
    tokens = {}
    for _ in range(2):
        lease = hand.take()
        assert hand.end(lease, finish_later={"timeout": "60s"}) == "ACCEPTED"
        tokens[lease["task"]["task_id"]] = lease["lease_token"]
    meshq("task", "complete", tokens[paid["task_id"]], '{"paid": true}')
    assert meshq("task", "run", paid["task_id"]).stdout == '{"paid": true}\n'
    final = ["--error", "no funds", "--error-type", "REFUSED", "--non-retryable"]
    meshq("task", "complete", tokens[refused["task_id"]], *final)
    assert "REFUSED: no funds" in meshq("task", "run", refused["task_id"], code=1).stderr
    meshq("task", "complete", tokens[refused["task_id"]], "1")
    assert "FAILED" in meshq("task", "get", refused["task_id"]).stdout, "the first end counts"


def test_what_there_is(meshq: Meshq) -> None:
    meshq("task", "run", "word_count", "a")
    assert "default" in meshq("queue", "list").stdout
    assert json.loads(meshq("queue", "get", "default", "--json").stdout)["counts"]["succeeded"] > 0
    assert "word_count" in meshq("worker", "list").stdout
    assert "meshq.v1.TaskService" in meshq("service", "list").stdout
    assert meshq("instance", "list").stdout.count("meshq.execution") == 2
    assert len(meshq("shard", "list", "--json").stdout.splitlines()) == 3


def test_a_worker_of_ones_own(meshq: Meshq, own_worker: str) -> None:
    assert meshq("task", "run", "greet", "Ada", "--queue", own_worker).stdout == "Hello, Ada.\n"
    assert meshq("task", "run", "factorize", "12", "--queue", own_worker).stdout == "[1, 2, 3, 4, 6, 12]\n"
    worker = json.loads(meshq("worker", "get", own_worker, "--json").stdout)
    assert (worker["labels"], worker["queues"]) == ({"a": "b"}, [own_worker])
    failed = meshq("task", "run", "factorize", "not a number", "--queue", own_worker, code=1)
    assert "INVALID_INPUT" in failed.stderr


def test_a_worker_without_tasks(meshq: Meshq) -> None:
    told = meshq("worker", "run", "no.such.module", code=2).stderr
    assert "no.such.module" in told
    assert "Traceback" not in told
