"""The load that runs while a test breaks something."""

import asyncio
import os
from dataclasses import dataclass, field

import psycopg

from meshq.client import Client, TaskSpec
from meshq.local.system import System

TASKS = int(os.environ.get("MESHQ_FAULT_TASKS", "20000"))
SETTLE_WITHIN = 240.0
LEDGER = "select count(*), count(distinct id), count(*) filter (where state = 7) from finished_tasks"
ENDS = "select count(*), count(distinct task_id) from attempts where outcome = 1"


@dataclass
class Load:
    """Tasks that are submitted in frames, and what became of them."""

    system: System
    client: Client
    tasks: int = TASKS
    ids: list[str] = field(default_factory=list)
    errors: list[Exception | None] = field(default_factory=list)

    async def submit(self) -> None:
        """Send all tasks; every one has to be accepted."""
        specs = (TaskSpec(type="word_count", payload=f"word {number}") for number in range(self.tasks))
        async for created in self.client.create_many(specs):
            if created.task_id is None:
                self.errors.append(created.error)
            else:
                self.ids.append(created.task_id)

    async def succeeded(self) -> int:
        """How many have succeeded, by the ledger's counters."""
        async for queue in self.client.queues():
            if queue.queue == "default":
                return queue.counts.succeeded
        return 0

    async def reaches(self, count: int) -> None:
        """Wait until so many have succeeded."""
        async with asyncio.timeout(SETTLE_WITHIN):
            while await self.succeeded() < count:  # noqa: ASYNC110 - it asks a server
                await asyncio.sleep(0.05)

    async def check(self) -> None:
        """All were accepted, all succeed, and each is recorded once."""
        assert self.errors == []
        assert len(set(self.ids)) == self.tasks
        await self.reaches(self.tasks)
        assert await self.succeeded() == self.tasks
        assert await self._ask("management", LEDGER) == (self.tasks, self.tasks, self.tasks)
        assert await self._ask("management", "select count(*) from open_tasks") == (0,)
        assert await self._ask("execution", ENDS) == (self.tasks, self.tasks)

    async def _ask(self, database: str, query: str) -> tuple[object, ...]:
        url = f"postgresql://meshq@{self.system.processes['postgres'].address}/{database}"
        async with await psycopg.AsyncConnection.connect(url) as connection:
            row = await (await connection.execute(query.encode())).fetchone()
            assert row is not None
            return tuple(row)
