"""What a plain task costs in bulk: statements, script calls and commits, counted by the servers themselves.

Times are those between beginning and end of a statement or a script: they say little while processors are
short of time. Counts, and what is written, say much.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from rich.table import Table

from meshq.bench.load import plain
from meshq.client import Client
from meshq.execution.ring import scripts
from meshq.execution.ring.connection import Connection, open_connection
from meshq.local.bench.stage import Outcome, Stage, bulk_run, table
from meshq.local.plan import ProcessPlan, Size, SystemPlan, make_plan
from meshq.local.servers import Postgres
from meshq.local.settings import LocalSettings
from meshq.local.system import System
from meshq.management.postgres.database import Database, LedgerConnection

WARM_UP: Final = 5_000
_SLOW_US: Final = 25
"""Scripts that take less are not looked at each by itself; single commands would be logged as well."""
_REMEMBERED: Final = 200_000
_OBSERVE: Final = ("-c", "shared_preload_libraries=pg_stat_statements", "-c", "track_wal_io_timing=on")
_BEGIN: Final = "SELECT pg_stat_statements_reset(), pg_stat_reset_shared('wal'), pg_stat_reset_shared('io')"
_STATEMENTS: Final = """
SELECT
    d.datname, s.query, s.calls, s.total_exec_time * 1000, s.wal_bytes::float, s.wal_records,
    s.shared_blks_hit + s.shared_blks_read
FROM pg_stat_statements AS s JOIN pg_database AS d ON d.oid = s.dbid
WHERE d.datname IN ('management', 'execution')
"""
_WAL: Final = """
SELECT w.wal_records, w.wal_fpi, w.wal_bytes::float, i.fsyncs, i.fsync_time * 1000
FROM pg_stat_wal AS w, (
    SELECT sum(fsyncs) AS fsyncs, sum(fsync_time) AS fsync_time FROM pg_stat_io WHERE object = 'wal'
) AS i
"""


@dataclass(frozen=True, slots=True)
class Use:
    """How often something was done, and what it took in all.

    Attributes:
        calls: How often.
        us: Microseconds from begin to end.
        wal_bytes: What was logged for it.
        wal_records: Likewise.
        pages: Pages that were looked at.
    """

    calls: int = 0
    us: float = 0.0
    wal_bytes: float = 0.0
    wal_records: int = 0
    pages: int = 0

    def __add__(self, other: Use) -> Use:
        """Both together."""
        return Use(
            self.calls + other.calls,
            self.us + other.us,
            self.wal_bytes + other.wal_bytes,
            self.wal_records + other.wal_records,
            self.pages + other.pages,
        )


class ObservedPostgres(Postgres):
    """PostgreSQL that counts what it does."""

    def command(self) -> list[str]:
        """As usual, with the module that counts statements."""
        return [*super().command(), *_OBSERVE]


def observed(
    data: Path, edge: int, ports: Mapping[str, int], settings: LocalSettings, size: Size
) -> SystemPlan:
    """The usual system on a PostgreSQL that counts."""
    plan = make_plan(data, edge, ports, settings, size)
    return replace(plan, processes=tuple(map(_observed, plan.processes)))


def _observed(plan: ProcessPlan) -> ProcessPlan:
    usual = plan.server
    if not isinstance(usual, Postgres):
        return plan
    server = ObservedPostgres(usual.data, usual.port, durable=usual.durable, databases=usual.databases)
    return replace(plan, server=server, command=tuple(server.command()))


async def costs(stage: Stage) -> Outcome:
    """Play a bulk run on a system of its own whose servers count."""
    async with System(ephemeral=True, port=0, planner=observed) as system, AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client(system.edge, timeout=60))
        here = replace(stage, client=client, system=system)
        await bulk_run(here, plain(min(stage.tasks, WARM_UP)))
        postgres = next(plan.server for plan in system.plan.processes if isinstance(plan.server, Postgres))
        ledger = await Database(postgres.url("postgres"), writers=1, readers=1).connect()
        stack.push_async_callback(ledger.close)
        shards = [await open_connection(address, "bench") for address in system.shards.values()]
        await _begin(ledger, shards)
        run = await bulk_run(here, plain(stage.tasks))
        statements, wal = await _statements(ledger), await _wal(ledger)
        called = await _scripts(shards)
        commands = await _commands(shards)
        for shard in shards:
            shard.close()
    parts = {"statements": statements, "scripts": called, "commands": commands}
    figures = {name: _figures(uses, stage.tasks) for name, uses in parts.items()}
    shown = [
        _table("what a task costs: statements", statements, stage.tasks),
        _wal_table(wal, stage.tasks),
        _table("what a task costs: scripts on all shards", called, stage.tasks),
        _table("what a task costs: commands, those of scripts included", commands, stage.tasks),
    ]
    return Outcome({"tasks": stage.tasks, **figures, "wal": wal}, shown, run.figures.lost)


async def _begin(ledger: LedgerConnection, shards: Iterable[Connection]) -> None:
    await ledger.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    await ledger.execute(_BEGIN)
    for shard in shards:
        await shard.call("CONFIG", "SET", "slowlog-max-len", _REMEMBERED, "slowlog-log-slower-than", _SLOW_US)
        await shard.call("SLOWLOG", "RESET")
        await shard.call("CONFIG", "RESETSTAT")


async def _statements(ledger: LedgerConnection) -> dict[str, Use]:
    uses: dict[str, Use] = defaultdict(Use)
    async for database, query, *numbers in ledger.cursor().stream(_STATEMENTS):
        uses[f"{database}: {statement_name(query)}"] += Use(*numbers)
    return dict(uses)


async def _wal(ledger: LedgerConnection) -> dict[str, float]:
    cursor = await ledger.execute(_WAL)
    row = await cursor.fetchone() or (0,) * len(_WRITTEN)
    return dict(zip(_WRITTEN, map(float, row), strict=True))


async def _scripts(shards: Iterable[Connection]) -> dict[str, Use]:
    names = {script.sha: script.name for script in scripts.ALL}
    uses: dict[str, Use] = defaultdict(Use)
    for shard in shards:
        for _, _, us, words, *_ in await shard.call("SLOWLOG", "GET", -1):
            if words[0].upper() == b"EVALSHA":
                uses[names.get(words[1], "another")] += Use(1, us)
    return dict(uses)


async def _commands(shards: Iterable[Connection]) -> dict[str, Use]:
    uses: dict[str, Use] = defaultdict(Use)
    for shard in shards:
        for name, use in command_uses(str(await shard.call("INFO", "commandstats"), "utf-8")):
            uses[name] += use
    return dict(uses)


def command_uses(info: str) -> Iterable[tuple[str, Use]]:
    """Read what INFO says of commands."""
    for found in _COMMAND.finditer(info):
        yield found["name"], Use(int(found["calls"]), float(found["us"]))


def statement_name(query: str) -> str:
    """What a statement does first, such as `insert into claims`."""
    found = _DOES.search(_COMMENT.sub("", query))
    return " ".join(found[0].lower().split()) if found else " ".join(query.split())[:30]


def _figures(uses: Mapping[str, Use], tasks: int) -> dict[str, dict[str, float]]:
    figures = {}
    for name, use in sorted(uses.items(), key=lambda item: -item[1].us):
        figures[name] = {
            "calls_per_1000": round(use.calls * 1_000 / tasks, 2),
            "us_per_call": round(use.us / max(use.calls, 1), 1),
            "us_per_task": round(use.us / tasks, 2),
        }
        if use.pages:
            figures[name] |= {
                "wal_bytes_per_task": round(use.wal_bytes / tasks, 1),
                "wal_records_per_task": round(use.wal_records / tasks, 2),
                "pages_per_task": round(use.pages / tasks, 2),
            }
    return figures


def _table(title: str, uses: Mapping[str, Use], tasks: int) -> Table:
    columns = dict(_HEADINGS if any(use.pages for use in uses.values()) else list(_HEADINGS.items())[:3])
    shown = table(title, "what", *columns.values())
    for name, figures in _figures(uses, tasks).items():
        if figures["us_per_task"] >= _SHOWN_US:
            shown.add_row(name, *(f"{figures.get(column, 0.0):,.2f}" for column in columns))
    return shown


def _wal_table(wal: Mapping[str, float], tasks: int) -> Table:
    shown = table("what a task costs: the log", "what", "per 1,000 tasks")
    for name, number in wal.items():
        shown.add_row(name, f"{number * 1_000 / tasks:,.1f}")
    return shown


_SHOWN_US: Final = 0.05
_WRITTEN: Final = ("records", "full pages", "bytes", "flushes", "µs of flushes")
_HEADINGS: Final = {
    "calls_per_1000": "calls per 1,000",
    "us_per_call": "µs per call",
    "us_per_task": "µs per task",
    "wal_bytes_per_task": "logged bytes per task",
    "wal_records_per_task": "log records per task",
    "pages_per_task": "pages per task",
}
_COMMAND: Final = re.compile(r"cmdstat_(?P<name>[^:]+):calls=(?P<calls>\d+),usec=(?P<us>\d+)")
_COMMENT: Final = re.compile(r"--[^\n]*")
_DOES: Final = re.compile(r"(INSERT INTO|DELETE FROM|UPDATE|FROM)\s+\w+", re.IGNORECASE)
