"""Instances of the previous version and of this one, side by side under load; the previous one goes first.

The previous version comes out of the history of the repository; where that is not there, nothing is tested.
"""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from meshq.client import Client, TaskSpec
from meshq.local.plan import Kind, ProcessPlan, Size, SystemPlan, make_plan
from meshq.local.settings import LocalSettings
from meshq.local.system import System

pytestmark = pytest.mark.slow

PREVIOUS = "f67e5c4"
"""The last commit before the ring could change while everything runs."""
REPOSITORY = Path(__file__).resolve().parents[2]
ROOTS = ("proto/python", "registry", "gateway", "management", "execution", "clients/python", "deploy")
OLD = frozenset({"management-1", "execution-1", "worker-1"})
SECONDS = 180.0


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The previous version: its PYTHONPATH, which goes before what is installed."""
    command = ["git", "-C", str(REPOSITORY), "archive", PREVIOUS, *ROOTS]
    packed = subprocess.run(command, capture_output=True, check=False)
    if packed.returncode != 0:
        pytest.skip(f"the history of the repository does not reach back to {PREVIOUS}")
    folder = tmp_path_factory.mktemp("previous")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return os.pathsep.join(str(folder / root) for root in ROOTS)


def planner(path: str) -> Any:
    """Plans a system whose first instances are of the previous version, and are there before the others."""

    def plan(
        data: Path, edge: int, ports: Mapping[str, int], settings: LocalSettings, size: Size
    ) -> SystemPlan:
        made = make_plan(data, edge, ports, settings, size)
        return replace(made, processes=tuple(_aged(process, path) for process in made.processes))

    return plan


def _aged(process: ProcessPlan, path: str) -> ProcessPlan:
    if process.name in OLD:
        return replace(process, environment={**process.environment, "PYTHONPATH": path})
    if process.kind in {Kind.MANAGEMENT, Kind.EXECUTION}:
        return replace(process, after=process.after | {f"{process.kind}-1"})
    return process


def specs(count: int) -> list[TaskSpec]:
    plain = [TaskSpec(type="word_count", payload=f"word {number}") for number in range(count)]
    failing = [
        TaskSpec(type="fail", payload={"times": 1, "retry_delay": 0.1}, max_attempts=5)
        for _ in range(count // 20)
    ]
    limited = [
        TaskSpec(type="word_count", payload="limited", limit_key=f"k{number % 5}")
        for number in range(count // 10)
    ]
    ordered = [
        TaskSpec(type="word_count", payload="in order", ordering_key=f"o{number % 3}")
        for number in range(count // 20)
    ]
    return plain + failing + limited + ordered


async def create(client: Client, count: int) -> list[str]:
    created = [item async for item in client.create_many(specs(count))]
    assert all(item.task_id for item in created), [item.error for item in created if item.error]
    return [item.task_id for item in created if item.task_id]


async def ask(system: System, database: str, query: str, *parameters: Any) -> Any:
    url = f"postgresql://meshq@{system.processes['postgres'].address}/{database}"
    async with await psycopg.AsyncConnection.connect(url) as connection:
        return await (await connection.execute(query.encode(), parameters)).fetchone()


async def all_succeeded(system: System, ids: Sequence[str]) -> None:
    """Each of them has ended, once, as it should."""
    query = (
        "SELECT count(*), count(DISTINCT id) FROM finished_tasks WHERE state = 7 AND id = ANY (%s::uuid[])"
    )
    end = time.monotonic() + SECONDS
    while (found := await ask(system, "management", query, list(ids))) != (len(ids), len(ids)):
        assert time.monotonic() < end, found
        await asyncio.sleep(0.2)


async def connected(system: System, *names: str) -> None:
    """Wait until the workers have said so."""
    end = time.monotonic() + SECONDS
    while not all("connected" in system.logs(name) for name in names):
        assert time.monotonic() < end, names
        await asyncio.sleep(0.1)


@pytest.mark.timeout(600)
async def test_two_versions_work_side_by_side(previous: str) -> None:
    size = Size(management=2, execution=2, workers=2)
    async with System(
        port=0, ephemeral=True, size=size, settings=LocalSettings(), planner=planner(previous)
    ) as system:
        async with Client(system.edge, timeout=60) as client:
            await connected(system, "worker-1", "worker-2")
            ids = await create(client, 600)
            await all_succeeded(system, ids)
            # The previous version goes while there is work, one component after the other.
            load = asyncio.create_task(create(client, 2_000))
            for name in ("worker-1", "execution-1", "management-1"):
                await system.stop_process(name)
            ids += await load
            await all_succeeded(system, ids)
            assert await ask(system, "management", "SELECT count(*) FROM open_tasks") == (0,)
        # Both have been there, and did not know the same steps.
        assert "migrated" in system.logs("management-1")
        assert "0004_generation.sql" not in system.logs("management-1")
        assert "0004_generation.sql" in system.logs("management-2")
        assert "0007_generation.sql" in system.logs("execution-2")
        query = "SELECT count(DISTINCT worker_id) FROM attempts"
        assert (await ask(system, "execution", query))[0] >= 2
