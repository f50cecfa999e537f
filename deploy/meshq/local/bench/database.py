"""What only PostgreSQL knows: to the microsecond when outcomes became durable, and every statement."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import psycopg

from meshq.local.plan import MANAGEMENT, ProcessPlan
from meshq.local.servers import POSTGRES_USER, Postgres
from meshq.local.system import System

PROCESS = "postgres"
_RECORDED = """
    SELECT id::text, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8
    FROM finished_tasks WHERE id = ANY(%s::uuid[])
"""
_STATEMENT = re.compile(r"LOG:  (?:statement|execute [^:]*): (.*)")
_SHOWN = 60


class TimedPostgres(Postgres):
    """One that remembers when it committed what, for which each commit writes some ten bytes more."""

    def command(self) -> list[str]:
        """As of any other, and that setting."""
        return [*super().command(), "-c", "track_commit_timestamp=on"]


def timed(plan: ProcessPlan) -> ProcessPlan:
    """The same process with a server that remembers its commits."""
    server = plan.server
    assert isinstance(server, Postgres)
    other = TimedPostgres(server.data, server.port, durable=server.durable, databases=server.databases)
    return replace(plan, command=tuple(other.command()), server=other)


def recorded(system: System, task_ids: Sequence[str]) -> dict[str, float]:
    """When the outcomes of tasks were committed to the ledger, in seconds since 1970.

    PostgreSQL takes the time just before it writes and syncs the commit.
    """
    with _connected(system, MANAGEMENT) as connection:
        return dict(connection.execute(_RECORDED, [list(task_ids)]).fetchall())


@contextlib.contextmanager
def statements(system: System) -> Iterator[Counter[str]]:
    """Count the statements that anybody executes while this is entered, by how they begin, once left."""
    found: Counter[str] = Counter()
    with _connected(system, "postgres") as connection:
        connection.execute("ALTER SYSTEM SET log_statement = 'all'")
        connection.execute("SELECT pg_reload_conf()")
        before = len(system.logs(PROCESS))
        try:
            yield found
        finally:
            log = system.logs(PROCESS)[before:]
            connection.execute("ALTER SYSTEM RESET log_statement")
            connection.execute("SELECT pg_reload_conf()")
    found.update(" ".join(text.split())[:_SHOWN] for text in _STATEMENT.findall(log))


def _connected(system: System, database: str) -> psycopg.Connection[tuple[str, float]]:
    address = system.processes[PROCESS].address
    return psycopg.connect(f"postgresql://{POSTGRES_USER}@{address}/{database}", autocommit=True)
