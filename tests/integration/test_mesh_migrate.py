"""Migrations while everything runs: several processes at a time, older and newer code, tables in use."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from meshq.contract.errors import InternalError, Unavailable
from meshq.mesh.postgres.migrate import migrate, migrations
from meshq.mesh.postgres.terms import OfficeRow

PACKAGES = ["meshq.management.postgres", "meshq.execution.postgres"]
EXECUTION = PACKAGES[1]
# The steps of the time when nobody ran meshq yet.
BEFORE_USE = {PACKAGES[0]: 2, PACKAGES[1]: 4}
Connection = psycopg.AsyncConnection[tuple[object, ...]]


@asynccontextmanager
async def connected(database: str) -> AsyncIterator[Connection]:
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize("package", PACKAGES)
async def test_steps_let_older_code_go_on(package: str) -> None:
    shutting_out = [step.name for step in migrations(package) if not step.expands]
    assert len(shutting_out) == BEFORE_USE[package]


@pytest.mark.parametrize("package", PACKAGES)
async def test_of_several_processes_one_migrates(database: str, package: str) -> None:
    async def start() -> list[str]:
        async with connected(database) as connection:
            return await migrate(connection, package)

    applied = await asyncio.gather(*(start() for _ in range(4)))
    assert sorted(filter(None, applied)) == [[step.name for step in migrations(package)]]


async def test_older_code_goes_on_beside_newer_code_unless_that_shuts_it_out(database: str) -> None:
    async with connected(database) as connection:
        await migrate(connection, EXECUTION)
        await connection.execute("INSERT INTO migrations (number, name, expands) VALUES (9998, 'n', true)")
        assert await migrate(connection, EXECUTION) == []
        await connection.execute("INSERT INTO migrations (number, name) VALUES (9999, 'n')")
        with pytest.raises(InternalError, match=r"is at migration 9999, .* knows only \d+: run the version"):
            await migrate(connection, EXECUTION)


@pytest.mark.parametrize("package", PACKAGES)
async def test_terms_of_offices_go_on_above_all_others_in_a_database_that_came_back(
    database: str, package: str
) -> None:
    async with connected(database) as connection:
        await migrate(connection, package)

        async def run(work: Any) -> Any:
            return await work(connection)

        former, other = (OfficeRow(run, "office", holder) for holder in ("former", "other"))
        term = await former.take(60)
        assert term
        await connection.execute("SELECT begin_generation()")
        assert not await former.hold(term, 60)
        assert (await other.take(0) or 0) > term + 100_000


async def test_databases_of_older_code_learn_what_steps_say(database: str) -> None:
    async with connected(database) as connection:
        await migrate(connection, EXECUTION)
        await connection.execute("ALTER TABLE migrations DROP COLUMN expands")
        await connection.execute("DELETE FROM migrations WHERE name = '0007_generation.sql'")
        await connection.execute("DROP FUNCTION begin_generation, raise_epochs_and_ring")
        await connection.execute("DROP TABLE generations")
        assert await migrate(connection, EXECUTION) == ["0007_generation.sql"]
        cursor = await connection.execute("SELECT number FROM migrations WHERE expands")
        assert await cursor.fetchall() == [(7,)]


async def test_a_table_in_use_is_waited_for_without_keeping_others_waiting(
    database: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("package")
    steps = folder / "a_component" / "migrations"
    steps.mkdir(parents=True)
    (folder / "a_component" / "__init__.py").touch()
    (steps / "0001_begin.sql").write_text("CREATE TABLE t (n int)")
    monkeypatch.syspath_prepend(folder)
    async with connected(database) as connection, connected(database) as other, connected(database) as user:
        await migrate(connection, "a_component")
        (steps / "0002_more.sql").write_text("-- Older code goes on working.\nALTER TABLE t ADD COLUMN m int")
        async with other.transaction():
            await other.execute("SELECT * FROM t")
            with pytest.raises(Unavailable, match=r"cannot be migrated while others have its tables"):
                await migrate(connection, "a_component", patience=0)
            migrating = asyncio.create_task(migrate(connection, "a_component"))
            for _ in range(5):
                begin = time.monotonic()
                await user.execute("INSERT INTO t VALUES (1)")
                assert time.monotonic() - begin < 5
                await asyncio.sleep(0.3)
            assert not migrating.done()
        assert await migrating == ["0002_more.sql"]
