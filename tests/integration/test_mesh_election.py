"""One leader at a time, on a real etcd and a real PostgreSQL, by processes that are killed and stopped."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fixtures import candidate

from meshq.contract.errors import Aborted
from meshq.local.servers import Etcd
from meshq.mesh.postgres.terms import OfficeRow, under_term

pytestmark = [pytest.mark.timeout(180), pytest.mark.slow]

DEADLINE = 60.0
TAKEN_OVER = 10.0
TABLES = """
CREATE TABLE offices (
    name text PRIMARY KEY, term bigint NOT NULL, holder text NOT NULL,
    take_time timestamptz NOT NULL, held_until timestamptz NOT NULL
);
CREATE TABLE work (id bigint GENERATED ALWAYS AS IDENTITY, term bigint NOT NULL, holder text NOT NULL);
"""


class Process:
    """A candidate, and what it has said."""

    def __init__(self, *arguments: str) -> None:
        self.name = arguments[0]
        self.said: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            [sys.executable, str(Path(candidate.__file__)), *arguments], stdout=subprocess.PIPE
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def term(self) -> int:
        terms = [item["term"] for item in self.said if "term" in item]
        return terms[-1] if terms else 0

    @property
    def refused(self) -> list[int]:
        """The terms under which it could not write any more."""
        return [item["refused"] for item in self.said if "refused" in item]

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(b"{"):
                self.said.append(json.loads(line))


class Candidates:
    """Some candidates for one office."""

    def __init__(self, etcd: str, database: str, *options: str) -> None:
        self.database = database
        self.all = [Process(name, etcd, database, *options) for name in ("a", "b")]

    def leader(self) -> Process:
        until(lambda: any(one.term for one in self.all), "a leader")
        return next(one for one in self.all if one.term)

    def other(self, one: Process) -> Process:
        return next(item for item in self.all if item is not one)

    def taken_over(self, before: Process) -> float:
        """The seconds until another one was in office and wrote under it."""
        began = time.monotonic()
        other = self.other(before)
        until(lambda: other.term, "the take-over")
        until(lambda: self.query("SELECT 1 FROM work WHERE holder = %s LIMIT 1", other.name), "work")
        return time.monotonic() - began

    def query(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database) as connection:
            return connection.execute(statement.encode(), parameters).fetchall()

    def check(self) -> None:
        """Nothing was written under a term after somebody wrote under a later one."""
        terms = [term for (term,) in self.query("SELECT term FROM work ORDER BY id")]
        assert terms
        assert terms == sorted(terms)
        holders = self.query("SELECT term, count(DISTINCT holder) FROM work GROUP BY term")
        assert all(count == 1 for _, count in holders)


def until(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + DEADLINE
    while not (found := condition()):
        assert time.monotonic() < end, f"{what} did not come about"
        time.sleep(0.01)
    return found


@pytest.fixture
def candidates(etcd: str, database: str) -> Iterator[Candidates]:
    yield from standing(etcd, database)


@pytest.fixture
def hasty(etcd: str, database: str) -> Iterator[Candidates]:
    """The same, and all times are shorter."""
    yield from standing(etcd, database, "--fast")


def standing(etcd: str, database: str, *options: str) -> Iterator[Candidates]:
    with psycopg.connect(database) as connection:
        connection.execute(TABLES)
    some = Candidates(etcd, database, *options)
    yield some
    for one in some.all:
        one.end()
    some.check()


def test_one_leads_and_hands_over_at_once_when_it_stops(candidates: Candidates) -> None:
    first = candidates.leader()
    assert candidates.other(first).term == 0
    first.signal(signal.SIGTERM)
    assert candidates.taken_over(first) < 5
    assert candidates.leader().term == 2 or candidates.other(first).term == 2


def test_a_killed_leader_is_followed_within_ten_seconds(candidates: Candidates) -> None:
    first = candidates.leader()
    first.signal(signal.SIGKILL)
    assert candidates.taken_over(first) < TAKEN_OVER


def test_a_leader_that_was_stopped_for_long_writes_nothing_when_it_wakes(candidates: Candidates) -> None:
    first = candidates.leader()
    first.signal(signal.SIGSTOP)
    # A transaction that was under way may have to end by itself first.
    candidates.taken_over(first)
    first.signal(signal.SIGCONT)
    until(lambda: first.refused, "the refusal")
    until(lambda: first.term == 0, "its knowing")
    assert candidates.other(first).term == 2


def test_nobody_loses_the_office_while_etcd_is_away(hasty: Candidates, etcd_server: Etcd) -> None:
    first = hasty.leader()
    term = first.term
    etcd_server.kill()
    # Long enough for the lease to end, and for the other one to look whether the row is held.
    until(lambda: held(hasty) > 2, "the row to be held")
    time.sleep(8)
    assert held(hasty) > 0
    assert (first.term, hasty.other(first).term) == (term, 0)
    shutil.rmtree(etcd_server.data)
    etcd_server.start()
    etcd_server.wait_ready()
    until(lambda: held(hasty) < 0, "the row to be let go")
    assert (first.term, hasty.other(first).term) == (term, 0)
    # The key is there again, so that a stop in order is noticed at once.
    first.signal(signal.SIGTERM)
    hasty.taken_over(first)


def held(candidates: Candidates) -> float:
    """For how many seconds the row is held yet."""
    ((seconds,),) = candidates.query("SELECT extract(epoch FROM held_until - clock_timestamp()) FROM offices")
    return float(seconds)


@pytest.mark.parametrize("emptied", [False, True])
def test_etcd_restarts(hasty: Candidates, etcd_server: Etcd, emptied: bool) -> None:
    first = hasty.leader()
    etcd_server.kill()
    if emptied:
        shutil.rmtree(etcd_server.data)
    etcd_server.start()
    etcd_server.wait_ready()
    first = hasty.leader()
    first.signal(signal.SIGKILL)
    assert hasty.taken_over(first) < TAKEN_OVER


def test_the_leader_goes_together_with_etcd(hasty: Candidates, etcd_server: Etcd) -> None:
    first = hasty.leader()
    etcd_server.kill()
    first.signal(signal.SIGKILL)
    assert hasty.taken_over(first) < 2 * TAKEN_OVER


def test_the_leader_goes_while_etcd_is_away(hasty: Candidates, etcd_server: Etcd) -> None:
    first = hasty.leader()
    etcd_server.kill()
    until(lambda: held(hasty) > 0, "the row to be held")
    first.signal(signal.SIGKILL)
    assert hasty.taken_over(first) < 2 * TAKEN_OVER


async def test_the_database_tells_old_terms_from_the_current_one(hasty: Candidates) -> None:
    leader = hasty.leader()
    until(lambda: held(hasty) < 0, "the row to be free")
    async with await psycopg.AsyncConnection.connect(hasty.database, autocommit=True) as connection:

        async def run(work: Any) -> Any:
            return await work(connection)

        row = OfficeRow(run, candidate.OFFICE, "c")
        term = await row.take(30)
        assert term == 2
        assert await row.free()
        assert not await OfficeRow(run, candidate.OFFICE, "d").free()
        assert await OfficeRow(run, candidate.OFFICE, "d").take(30) is None
        assert not await row.hold(1, 30)
        with pytest.raises(Aborted, match="Term 1 of the office office is over"):
            await under_term(
                connection, candidate.OFFICE, 1, lambda: connection.execute(candidate.WORK, [1, "c"])
            )
        assert hasty.query("SELECT FROM work WHERE holder = 'c'") == []
        # Whoever was in office notices with its next step.
        until(lambda: leader.refused and not leader.term, "the refusal")
        await under_term(
            connection, candidate.OFFICE, 2, lambda: connection.execute(candidate.WORK, [2, "c"])
        )
        assert await row.hold(term, 0)
