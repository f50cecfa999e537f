"""The two databases as backups see them: what is in them, their snapshots, and how they become empty."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

import psycopg
from psycopg import conninfo, sql

from meshq.local.backup.archive import EXECUTION, MANAGEMENT
from meshq.local.backup.errors import DatabaseUnusable

# The lock under which databases are migrated: no instance that starts gets past it while it is held.
MIGRATION_LOCK = 0x6D65_7368_7101
GENERATION = {MANAGEMENT: "0004_generation.sql", EXECUTION: "0007_generation.sql"}
"""The migrations since which a database can come back."""
_LANDMARK = {MANAGEMENT: "open_tasks", EXECUTION: "attempts"}
_SETTING = {MANAGEMENT: "MESHQ_MANAGEMENT_DATABASE_URL", EXECUTION: "MESHQ_EXECUTION_DATABASE_URL"}
_COUNTS = {
    MANAGEMENT: {"open tasks": "SELECT count(*) FROM open_tasks", "queues": "SELECT count(*) FROM queues"},
    EXECUTION: {"deferred tasks": "SELECT count(*) FROM deferrals"},
}
_CONNECT_SECONDS = 10
_TRIES = 5
_PATIENT = """
SELECT set_config('statement_timeout', '0', false), set_config('lock_timeout', '60s', false),
    set_config('idle_in_transaction_session_timeout', '0', false), set_config('timezone', 'UTC', false)
"""
_TABLES = """
SELECT format('%I.%I', n.nspname, c.relname)
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
ORDER BY 1
"""
_USERS = """
SELECT count(*), string_agg(DISTINCT coalesce(nullif(application_name, ''), usename::text), ', ')
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
# What belongs to an extension stays.
_EMPTY = """
DO $$
DECLARE statement text;
BEGIN
    -- All are named before the first one takes others with it.
    FOREACH statement IN ARRAY ARRAY(
        SELECT format('DROP %s IF EXISTS %s CASCADE', kind, name) FROM (
            SELECT
                CASE c.relkind WHEN 'S' THEN 'SEQUENCE' WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END AS kind,
                format('%I.%I', n.nspname, c.relname) AS name, c.oid, 'pg_class'::regclass AS class
            FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE c.relkind IN ('r', 'p', 'S', 'v') AND n.nspname = 'public'
            UNION ALL
            SELECT 'ROUTINE', p.oid::regprocedure::text, p.oid, 'pg_proc'::regclass
            FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE n.nspname = 'public'
        ) AS found
        WHERE NOT EXISTS (
            SELECT FROM pg_depend AS d
            WHERE d.classid = found.class AND d.objid = found.oid AND d.deptype = 'e'
        )
    ) LOOP
        EXECUTE statement;
    END LOOP;
END $$
"""


@dataclass(frozen=True)
class Contents:
    """What a database holds, and where it is.

    Attributes:
        conninfo: Leads to the very server that was asked, without the password.
        password: For it, or empty.
        server: The version of PostgreSQL.
        migrations: The files of the migrations that were applied.
    """

    conninfo: str
    password: str
    server: tuple[int, int]
    migrations: tuple[str, ...]


@dataclass(frozen=True)
class Snapshot:
    """One moment of a database, for as long as its connection holds it."""

    name: str
    taken: str
    rows: dict[str, int]


class Database:
    """A connection to one of the databases; a context manager.

    Args:
        name: `management` or `execution`.
        url: Where it is; of several hosts the one that takes writes is used.

    Raises:
        DatabaseUnusable: It does not answer.
    """

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self._connection = self._connect(url)
        self._ask(_PATIENT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._connection.close()

    def contents(self) -> Contents:
        """What it holds; no migrations if it is empty."""
        version = self._connection.info.server_version
        return Contents(
            *self._address(),
            (version // 10_000, version % 10_000),
            tuple(self._applied() if self.tables() else ()),
        )

    def tables(self) -> list[str]:
        """The names of all tables."""
        return [name for (name,) in self._ask(_TABLES)]

    def check(self) -> Contents:
        """What it holds, if that is what it should; raises DatabaseUnusable."""
        contents, tables = self.contents(), self.tables()
        if not contents.migrations:
            raise DatabaseUnusable(
                f"The {self.name} database is not one of meshq: it has no table of migrations."
            )
        if f"public.{_LANDMARK[self.name]}" not in tables:
            raise DatabaseUnusable(
                f"{_SETTING[self.name]} names a database of meshq, but not that of {self.name}."
            )
        if GENERATION[self.name] not in contents.migrations:
            raise DatabaseUnusable(
                f"The {self.name} database is of a version of meshq that made no backups: start this "
                f"version on it once, and try again."
            )
        return contents

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """Hold one moment, and all tables as they are; others go on reading and writing."""
        for left in reversed(range(_TRIES)):
            tables = ", ".join(self.tables())
            try:
                with self._connection.transaction():
                    self._connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                    self._connection.execute(f"LOCK TABLE {tables} IN ACCESS SHARE MODE")
                    yield self._moment()
                    return
            except psycopg.errors.UndefinedTable:
                # A partition was dropped in between.
                if not left:
                    raise

    def users(self) -> tuple[int, str]:
        """How many others are connected, and what they call themselves."""
        ((count, names),) = self._ask(_USERS)
        return count, names or ""

    def lock(self) -> bool:
        """Keep instances from starting on it until the connection is closed; whether nobody else does."""
        return bool(self._ask("SELECT pg_try_advisory_lock(%s)", [MIGRATION_LOCK])[0][0])

    def empty(self) -> None:
        """Drop everything in it."""
        self._connection.execute(_EMPTY)

    def begin_generation(self) -> None:
        """Let everything that remembers this database know that it has come back."""
        self._ask("SELECT begin_generation()")

    def analyze(self) -> None:
        """Let PostgreSQL look at what it has got."""
        self._connection.execute("ANALYZE")

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Turn the driver's errors into sentences."""
        try:
            yield
        except psycopg.Error as error:
            raise DatabaseUnusable(f"The {self.name} database refuses: {_first_line(error)}.") from error

    def _moment(self) -> Snapshot:
        ((name,),) = self._ask("SELECT pg_export_snapshot()")
        rows = {what: self._ask(query)[0][0] for what, query in _COUNTS[self.name].items()}
        return Snapshot(name, datetime.now(UTC).isoformat(timespec="milliseconds"), rows)

    def _applied(self) -> list[str]:
        if "public.migrations" not in self.tables():
            return []
        return [name for (name,) in self._ask("SELECT name FROM migrations ORDER BY number")]

    def _ask(self, query: str, parameters: list[Any] | None = None) -> list[Any]:
        found: list[Any] = self._connection.execute(query.encode(), parameters).fetchall()
        return found

    def _connect(self, url: str) -> Any:
        try:
            return psycopg.connect(
                url, autocommit=True, connect_timeout=_CONNECT_SECONDS, target_session_attrs="read-write",
                application_name="meshq backup",
            )  # fmt: skip
        except psycopg.Error as error:
            raise DatabaseUnusable(
                f"The {self.name} database does not answer: {_first_line(error)}."
            ) from error

    def _address(self) -> tuple[str, str]:
        info = self._connection.info
        parameters = {**info.get_parameters(), "host": info.host, "port": str(info.port)}
        for changing in ("hostaddr", "target_session_attrs", "application_name"):
            parameters.pop(changing, None)
        return conninfo.make_conninfo(**parameters), info.password


def create(name: str, url: str) -> None:
    """Make an empty database unless there is one; raises DatabaseUnusable."""
    try:
        psycopg.connect(url, connect_timeout=_CONNECT_SECONDS).close()
    except psycopg.OperationalError as error:
        if "does not exist" not in str(error):
            raise DatabaseUnusable(f"The {name} database does not answer: {_first_line(error)}.") from error
        _create(name, url)


def _create(name: str, url: str) -> None:
    own = str(conninfo.conninfo_to_dict(url).get("dbname", name))
    try:
        with psycopg.connect(conninfo.make_conninfo(url, dbname="postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(own)))
    except psycopg.Error as error:
        raise DatabaseUnusable(
            f"There is no database {own}, and it cannot be made ({_first_line(error)}): make an empty one."
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip().rstrip(".") if lines else type(error).__name__
