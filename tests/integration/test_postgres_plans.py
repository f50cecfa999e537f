"""PostgreSQL goes by indexes also where it believes a table to be empty.

It believes so of a table that had no rows when it was last analyzed, however many came since.
"""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from meshq.execution.postgres.database import Database as ExecutionDatabase
from meshq.management.postgres.database import Database as LedgerDatabase

LEDGER, EXECUTION = "meshq.management.postgres", "meshq.execution.postgres"
FILL_AND_EMPTY = {"open_tasks", "unique_keys", "ordering_keys", "claims", "checkpoints", "deferrals"}

_BY_WHAT_IS_GIVEN = re.compile(r"\[\]|ARRAY\b")
_WHOLE = re.compile(r"(\s|--.*\n)*(WITH|SELECT|INSERT|UPDATE|DELETE)\b")
_PUT_TOGETHER_LATER = re.compile(r"<\w+>|\{")
_PARAMETER = re.compile(r"%(?:\((\w+)\))?s")


def statements(package: str) -> dict[str, str]:
    """The statements that find rows by what is given, by the constants that have them."""
    found = {}
    for info in pkgutil.iter_modules(importlib.import_module(package).__path__):
        module = importlib.import_module(f"{package}.{info.name}")
        for name, value in vars(module).items():
            text = value.decode() if isinstance(value, bytes) else value
            if name.isupper() and isinstance(text, str) and _WHOLE.match(text):
                found[f"{info.name}.{name}"] = text
    return {
        name: text
        for name, text in found.items()
        if _BY_WHAT_IS_GIVEN.search(text) and not _PUT_TOGETHER_LATER.search(text)
    }


def numbered(text: str) -> tuple[str, int]:
    """A statement with parameters as PostgreSQL writes them, and how many it has."""
    places: dict[str, int] = {}

    def place(found: re.Match[str]) -> str:
        return f"${places.setdefault(found[1] or str(found.start()), len(places) + 1)}"

    return _PARAMETER.sub(place, text), len(places)


def scans(node: dict[str, Any]) -> Iterator[str]:
    """The tables that a plan goes over as a whole."""
    if "Scan" in node["Node Type"] and "Relation Name" in node and not _by_index(node):
        yield node["Relation Name"]
    for below in node.get("Plans", ()):
        yield from scans(below)


def _by_index(node: dict[str, Any]) -> bool:
    return "Index Cond" in node or any("Index Cond" in below for below in node.get("Plans", ()))


async def gone_over(connection: psycopg.AsyncConnection[Any], text: str) -> set[str]:
    query, count = numbered(text)
    values = f"({', '.join(['NULL'] * count)})" if count else ""
    await connection.execute(f"PREPARE probe AS {query}".encode())
    cursor = await connection.execute(f"EXPLAIN (FORMAT JSON) EXECUTE probe{values}".encode())
    row = await cursor.fetchone()
    await connection.execute("DEALLOCATE probe")
    assert row is not None
    return FILL_AND_EMPTY.intersection(scans(row[0][0]["Plan"]))


async def all_gone_over(connection: psycopg.AsyncConnection[Any], package: str) -> dict[str, set[str]]:
    await connection.execute("ANALYZE")
    found = {name: await gone_over(connection, text) for name, text in statements(package).items()}
    return {name: tables for name, tables in found.items() if tables}


@pytest.mark.parametrize("package", [LEDGER, EXECUTION])
async def test_no_table_that_fills_and_empties_is_gone_over(database: str, package: str) -> None:
    if package == LEDGER:
        ledger = LedgerDatabase(database, writers=1, readers=1)
        await ledger.start()
        found = await ledger.run(lambda connection: all_gone_over(connection, package))
        await ledger.stop()
    else:
        execution = ExecutionDatabase(database, size=1)
        await execution.start()
        found = await execution.run(lambda connection: all_gone_over(connection, package))
        await execution.stop()
    assert found == {}


def test_the_statements_are_looked_at() -> None:
    assert {"moves._FINISH_QUIETLY", "inserts._CREATE", "upkeep._EXPIRE"} <= statements(LEDGER).keys()
    assert {"attempts._DELETE", "deferrals._AMONG"} <= statements(EXECUTION).keys()


async def test_a_plan_that_goes_over_a_table_is_seen(database: str) -> None:
    ledger = LedgerDatabase(database, writers=1, readers=1)
    await ledger.start()
    joined = "SELECT FROM open_tasks AS o JOIN unnest(%(ids)s::uuid[]) AS i (id) ON o.id = i.id"
    await ledger.run(lambda connection: connection.execute("ANALYZE"))
    assert await ledger.run(lambda connection: gone_over(connection, joined)) == {"open_tasks"}
    await ledger.stop()
