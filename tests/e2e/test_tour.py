"""The README's second tour, as it is written there: a task's whole life in five minutes."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from meshq.client import SyncClient
from meshq.local.system import System

README = Path(__file__).resolve().parents[2] / "README.md"
TOUR = README.read_text().partition("\n## A task's whole life in five minutes\n")[2].partition("\n## ")[0]
RETRIED, RESUMED, KEYED, QUEUED = re.findall(r"```sh\n(.*?)```", TOUR, re.DOTALL)
# Scripts know no aliases, so that it is this one. It tells its exit codes.
MESHQ = 'meshq() { command meshq "$@"; local code=$?; echo "exit $code: $1 $2" >&2; return $code; }\n'

Walk = Callable[[str], str]


@pytest.fixture
def walk(system: System) -> Walk:
    """Runs a part of the tour; what it prints, and the exit codes behind that."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    environment = os.environ | {"MESHQ_TARGET": system.edge, "PATH": path}

    def run(part: str) -> str:
        done = subprocess.run(
            ["bash", "-c", MESHQ + part], env=environment, capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr

    return run


def all_in_order(told: str, *parts: str) -> None:
    """All of these are said, one after the other."""
    assert re.search(".*".join(parts), told, re.DOTALL), told


def test_tasks_fail_go_on_where_they_stumbled_and_snooze(walk: Walk) -> None:
    with ThreadPoolExecutor() as pool:
        retried, resumed = pool.map(walk, (RETRIED, RESUMED))
    all_in_order(retried, "RETRYING", '{"attempt": 3}', "1  *FAILED", "2  *FAILED", "3  *SUCCEEDED")
    assert re.findall("exit .*", retried) == [f"exit 0: task {verb}" for verb in ("create", "watch", "get")]
    all_in_order(resumed, '"resumed_after": 3', '"snoozed_seconds": 1')
    assert re.findall("exit .*", resumed) == ["exit 0: task run"] * 2


def test_tasks_wait_for_their_time_their_key_and_each_other(walk: Walk, client: SyncClient) -> None:
    told = walk(KEYED)
    client.cancel_many(type="sleep", queue="default")
    all_in_order(told, r"([0-9a-f-]{36})\n\1\n", "PREDECESSOR", "SCHEDULED", "1 task is cancelled")
    assert set(re.findall("exit (.*):", told)) == {"0"}


def test_a_queue_is_limited_and_stopped_and_a_dead_letter_redriven(walk: Walk) -> None:
    told = walk(QUEUED)
    all_in_order(
        told, "is set", "is paused", "lunch", "2 at workers, 10 starts in 1.0 s", "goes on", "is set"
    )
    all_in_order(
        told, "tasks? (is|are) redriven", "Error: Task .* FAILED at attempt 1", "exit 0: task redrive"
    )
    assert re.findall("exit [1-9].*", told) == ["exit 1: task run"]
