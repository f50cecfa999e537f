"""A whole system that loses both databases: what its backup knew goes on, what came later is forgotten."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from google.protobuf.duration_pb2 import Duration

from meshq.client import Client, TaskSpec
from meshq.local.backup.making import back_up
from meshq.local.backup.restoring import restore
from meshq.local.plan import Size
from meshq.local.settings import LocalSettings
from meshq.local.system import System
from meshq.mesh.channels import open_channel
from meshq.v1 import worker_service_pb2 as pb
from meshq.v1.worker_service_pb2_grpc import WorkerServiceStub

pytestmark = pytest.mark.slow

SECONDS = 180.0
NO_SYSTEM = LocalSettings()
ACCEPTED, LEASE_LOST = 1, 2


async def until(ask: Callable[[], Awaitable[Any]], what: str) -> Any:
    end = time.monotonic() + SECONDS
    while not (found := await ask()):
        assert time.monotonic() < end, what
        await asyncio.sleep(0.1)
    return found


async def rows(system: System, database: str, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    url = f"postgresql://meshq@{system.processes['postgres'].address}/{database}"
    async with await psycopg.AsyncConnection.connect(url) as connection:
        return await (await connection.execute(query.encode(), parameters)).fetchall()


async def ended(system: System, ids: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """State, end and attempt of those that have ended."""
    query = "SELECT id::text, state, end_ms, attempt FROM finished_tasks WHERE id = ANY (%s::uuid[])"
    return {row[0]: row[1:] for row in await rows(system, "management", query, list(ids))}


async def all_ended(system: System, ids: Sequence[str], what: str) -> dict[str, tuple[Any, ...]]:
    async def ask() -> dict[str, tuple[Any, ...]] | None:
        found = await ended(system, ids)
        return found if len(found) == len(set(ids)) else None

    found: dict[str, tuple[Any, ...]] = await until(ask, what)
    return found


async def create(client: Client, specs: Sequence[TaskSpec]) -> list[str]:
    created = [item async for item in client.create_many(specs)]
    assert all(item.task_id for item in created), [item.error for item in created if item.error]
    return [item.task_id for item in created if item.task_id]


def mixed(count: int) -> list[TaskSpec]:
    """Plain ones, some that fail first, some that take a while, some that are due later, some in order."""
    plain = [TaskSpec(type="word_count", payload=f"word {number}") for number in range(count)]
    failing = [
        TaskSpec(type="fail", payload={"times": 1, "retry_delay": 0.1}, max_attempts=5)
        for _ in range(count // 20)
    ]
    slow = [TaskSpec(type="sleep", payload=1.0) for _ in range(count // 50)]
    later = [TaskSpec(type="word_count", payload="later", start_delay=8.0) for _ in range(count // 50)]
    ordered = [
        TaskSpec(type="word_count", payload="in order", ordering_key=f"k{number % 3}")
        for number in range(count // 50)
    ]
    return plain + failing + slow + later + ordered


@asynccontextmanager
async def hand(system: System) -> AsyncIterator[Any]:
    async with open_channel(system.edge) as channel:
        yield WorkerServiceStub(channel)


async def poll(worker: Any, most: int = 1, wait: int = 10) -> list[pb.Assignment]:
    request = pb.PollTasksRequest(
        worker_id="hand", task_types=["by_hand"], max_tasks=most, wait_timeout=Duration(seconds=wait)
    )
    return list((await worker.PollTasks(request)).assignments)


async def complete(worker: Any, token: bytes, **outcome: Any) -> int:
    result = pb.TaskResult(lease_token=token, **(outcome or {"success": pb.Success(data=b"done")}))
    answer = await worker.CompleteTasks(pb.CompleteTasksRequest(worker_id="hand", results=[result]))
    return int(answer.acks[0].status)


@pytest.mark.timeout(600)
async def test_what_the_backup_knew_goes_on_and_what_came_later_never_resurfaces(
    server_folder: Path, tmp_path: Path, shards: dict[str, str]
) -> None:
    # The shards are not the system's own: they run on, with all that they hold.
    settings = LocalSettings(shards=",".join(f"{name}={address}" for name, address in shards.items()))
    data = server_folder / "restored"
    options: dict[str, Any] = {"port": 0, "settings": settings, "size": Size(2, 2, 1)}
    async with System(data, **options) as system, Client(system.edge, timeout=60) as client:
        finished = await create(client, mixed(100)[:100])
        before = await all_ended(system, finished, "the first tasks")
        by_hand = await create(client, [TaskSpec(type="by_hand", max_attempts=3) for _ in range(3)])
        async with hand(system) as worker:
            (held,), (kept,) = await poll(worker), await poll(worker)
            later = pb.FinishLater(timeout=Duration(seconds=600))
            assert await complete(worker, kept.lease_token, finish_later=later) == ACCEPTED
        load = asyncio.create_task(create(client, mixed(1_500)))
        open_ones = await create(client, mixed(200))
        known = [*finished, *by_hand, *open_ones]
        path, manifest = await asyncio.to_thread(back_up, tmp_path, data, NO_SYSTEM)
        assert manifest.management.rows["open tasks"] >= 3
        # It goes on: what was open ends, and there is more that the backup knows nothing of.
        await create(client, mixed(200))
        await load
        forgotten = await create(client, [TaskSpec(type="by_hand") for _ in range(30)])
        await all_ended(system, open_ones, "what was open when the backup was made")
        async with hand(system) as worker:
            (newer,) = await poll(worker)
    shutil.rmtree(data / "postgres")
    restored = await asyncio.to_thread(restore, path, data, NO_SYSTEM, force=False)
    assert restored == manifest

    async with System(data, **options) as system, Client(system.edge, timeout=60) as client:
        async with hand(system) as worker:
            # Leases of before are of another history, but for what the database itself has kept.
            assert await complete(worker, held.lease_token) == LEASE_LOST
            assert await complete(worker, newer.lease_token) == LEASE_LOST
            beat = pb.HeartbeatTasksRequest(worker_id="hand", lease_tokens=[held.lease_token])
            assert list((await worker.HeartbeatTasks(beat)).lost_lease_tokens) == [held.lease_token]
            assert await complete(worker, kept.lease_token) == ACCEPTED
            # The two others are dispatched anew, and none of those that only the shards remember.
            seen: set[str] = set()
            while len(seen) < 2:
                for assignment in await poll(worker, most=10):
                    seen.add(str(assignment.task.task_id))
                    assert await complete(worker, assignment.lease_token) == ACCEPTED
            assert seen < set(by_hand)
            assert await poll(worker, most=10, wait=3) == []
        after = await all_ended(system, known, "what the backup knew as accepted")
        assert {task_id: after[task_id] for task_id in finished} == before
        assert {state for state, _, _ in after.values()} == {7}
        # Of what came later there is what was accepted before the ledger's moment, and nothing else.
        assert await ended(system, forgotten) == {}
        await until(lambda: nothing_open(system), "open tasks")
        await check_records(system, known)
        task = await client.get(open_ones[0])
        assert task.succeeded
        assert task.result is not None
        # It takes new work.
        await all_ended(system, await create(client, mixed(100)), "new tasks")


async def nothing_open(system: System) -> bool:
    return await rows(system, "management", "SELECT count(*) FROM open_tasks") == [(0,)]


async def check_records(system: System, ids: Sequence[str]) -> None:
    """Each task has ended once, and each has one success recorded."""
    counted = "SELECT count(*) = count(DISTINCT id) FROM finished_tasks"
    assert await rows(system, "management", counted) == [(True,)]
    successes = """
        SELECT count(*), count(DISTINCT task_id) FROM attempts
        WHERE outcome = 1 AND task_id = ANY (%s::uuid[])
    """
    assert await rows(system, "execution", successes, list(ids)) == [(len(ids), len(ids))]
