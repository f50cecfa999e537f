"""`meshq bench` against a live system, and what it leaves behind: nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sysconfig
import uuid
from pathlib import Path

import pytest
from fixtures.processes import running

from meshq.client import SyncClient
from meshq.local.system import System

BENCH = [str(Path(sysconfig.get_path("scripts")) / "meshq"), "bench"]
TINY = ["--tasks", "100", "--calls", "20", "--concurrency", "4"]
WITHIN = 60.0


def leftovers(client: SyncClient, queue: str) -> list[str]:
    return [found.queue for found in client.queues() if found.queue.startswith(queue)]


@pytest.fixture
def queue() -> str:
    return f"bench-{uuid.uuid4().hex[:8]}"


def test_it_measures_and_cleans_up(system: System, client: SyncClient, queue: str) -> None:
    command = [*BENCH, *TINY, "--json", "--target", system.edge, "--queue", queue]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["bulk"]["tasks"] == 100
    assert found["bulk"]["lost"] == 0
    assert found["calls"]["tasks"] == 20
    assert min(found[name]["throughput_per_s"] for name in ("accept", "bulk", "calls")) > 0
    points = found["single"]["points_ms"]
    assert points["arrived"]["p50"] < points["handled"]["p50"] < points["event"]["p50"]
    assert found["events"]["after_handler_ms"]["p50"] > 0
    assert leftovers(client, queue) == []
    assert client.count(queue=queue).count == 0


def test_it_cleans_up_when_it_is_interrupted(system: System, client: SyncClient, queue: str) -> None:
    environment = os.environ | {"MESHQ_TARGET": system.edge}
    command = [*BENCH, "--tasks", "1000000", "--queue", queue]
    with running(command, env=environment, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("warming up"):
                process.send_signal(signal.SIGINT)
        assert process.wait(WITHIN) == 130
    assert leftovers(client, queue) == []


def test_it_leaves_queues_alone_that_exist(system: System, client: SyncClient, queue: str) -> None:
    client.create_queue(queue)
    command = [*BENCH, *TINY, "--target", system.edge, "--queue", queue]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN, check=False)
    assert done.returncode == 5
    assert f"there is a queue {queue} already; measuring takes away" in done.stderr
    assert leftovers(client, queue) == [queue]
    client.delete_queue(queue)
