"""What one instance of execution does for all, by two at once and by one that was in office before."""

from __future__ import annotations

import asyncio
from math import inf
from typing import Any

import psycopg
import pytest
from fixtures.execution import cluster, wait_until

from meshq.contract.errors import Aborted
from meshq.execution.postgres.checkpoints import CheckpointStore
from meshq.execution.upkeep import Jobs, Outlook, Upkeep


class Counted:
    """A job that notes when it is done."""

    def __init__(self) -> None:
        self.done = 0

    async def run_once(self) -> None:
        self.done += 1


class Office:
    name = "meshq.execution"
    term = 3
    leads = True
    doubted = 0

    def doubt(self) -> None:
        self.doubted += 1


async def test_only_what_is_due_is_done_and_only_in_office() -> None:
    outlook = Outlook(3, strayed=False, checkpoints=True, deferrals=False)
    jobs = Jobs(Counted(), Counted(), Counted())
    office = Office()

    async def look(_: str) -> Outlook:
        return outlook

    upkeep = Upkeep(look, office, jobs)
    for _ in range(2):
        await upkeep.run_once()
    assert [job.done for job in jobs] == [1, 2, 0]  # type: ignore[attr-defined]
    outlook = Outlook(3, strayed=True, checkpoints=False, deferrals=True)
    await upkeep.run_once()
    assert [job.done for job in jobs] == [2, 2, 1]  # type: ignore[attr-defined]
    # Another one is in office.
    outlook = outlook._replace(term=4)
    await upkeep.run_once()
    office.leads = False
    await upkeep.run_once()
    assert [job.done for job in jobs] == [2, 2, 1]  # type: ignore[attr-defined]
    assert office.doubted == 1


async def test_two_in_office_and_one_that_was(database: str, shards: dict[str, str]) -> None:
    async with cluster(database, shards) as system:
        both = [(await system.start()).execution for _ in range(2)]
        await wait_until(lambda: any(one.office.leads for one in both), "somebody in office")
        if both[1].office.leads:
            both.reverse()
        first, second = both
        assert not second.office.leads
        await second.office.stop()
        second.office.term, second.office._trusted_until = first.office.term, inf
        query(database, "INSERT INTO checkpoints VALUES (gen_random_uuid(), 1, 0, '') RETURNING 1")
        system.ledger.open_ids = set()
        for one in both:
            one.upkeep.office_changed()
        await asyncio.gather(*(one.upkeep.run_once() for one in both))
        assert query(database, "SELECT count(*) FROM checkpoints") == 0
        # As if another instance had taken the office while both were stopped.
        query(database, "INSERT INTO checkpoints VALUES (gen_random_uuid(), 1, 0, '') RETURNING 1")
        query(database, "UPDATE offices SET term = term + 1, holder = 'x' RETURNING 1")
        store = CheckpointStore(second.database.under(second.office))
        page = await CheckpointStore(second.database).old(bytes(16), 10**15, 10)
        with pytest.raises(Aborted):
            await store.delete(page)
        assert query(database, "SELECT count(*) FROM checkpoints") == 1


def query(database: str, statement: str) -> Any:
    with psycopg.connect(database) as connection:
        row = connection.execute(statement.encode()).fetchone()
        assert row is not None
        return row[0]
