"""Bringing a backup back.

Everything is looked at before anything is changed. Execution's database comes first and the ledger last: a
restore that was interrupted has left an empty ledger, so that nothing runs from it. While it goes on, no
instance gets past the lock under which databases are migrated. Each database comes back in one
transaction and then gets a new generation, so that shards, leases and settings of before count no more.
"""

import contextlib
import re
from importlib import resources
from pathlib import Path

from meshq.local import binaries
from meshq.local.backup import programs
from meshq.local.backup.archive import EXECUTION, MANAGEMENT, NAMES, Archive, Manifest, copy
from meshq.local.backup.databases import GENERATION, Contents, Database, create
from meshq.local.backup.errors import NotABackup, RestoreFailed, RestoreRefused
from meshq.local.backup.places import for_restore
from meshq.local.settings import LocalSettings

_ORDER = (EXECUTION, MANAGEMENT)
_MIGRATION = re.compile(r"\d{4}_\w+\.sql")


def check(path: Path) -> Manifest:
    """Whether a file is a complete backup that this version can restore; raises NotABackup if not."""
    archive = Archive(path)
    for name in NAMES:
        _check_version(archive, name)
    archive.check()
    return archive.manifest


def restore(path: Path, data: Path, settings: LocalSettings, *, force: bool) -> Manifest:
    """Restore both databases.

    Args:
        path: The backup.
        data: The data directory of `meshq up`, for databases that settings do not name.
        settings: May name the databases.
        force: Drop what is in the databases.

    Raises:
        LocalError: It could not be done; RestoreFailed says that databases have changed.
    """
    manifest = check(path)
    with for_restore(data, settings) as urls, contextlib.ExitStack() as opened:
        for name in NAMES:
            create(name, urls[name])
        databases = {name: opened.enter_context(Database(name, urls[name])) for name in NAMES}
        if len({database.contents().conninfo for database in databases.values()}) < len(NAMES):
            raise RestoreRefused("Both settings name one database; management and execution need one each.")
        contents = {name: _look(database, manifest, force=force) for name, database in databases.items()}
        tools = {name: _tool(name, contents[name], manifest) for name in NAMES}
        for name in _ORDER:
            _bring_back(Archive(path), databases[name], tools[name], contents[name])
    return manifest


def _look(database: Database, manifest: Manifest, *, force: bool) -> Contents:
    """See that a database can be filled."""
    with database.translated():
        contents = database.contents()
        count, users = database.users()
        if count or not database.lock():
            raise RestoreRefused(
                f"The {database.name} database is in use ({count} connections: {users or 'a migration'}): "
                f"stop every process of meshq first."
            )
        if database.tables() and not force:
            raise RestoreRefused(
                f"The {database.name} database is not empty: use another one, or --force, which drops what "
                f"is in it."
            )
    source = manifest.of(database.name).server
    if contents.server[0] < source[0]:
        raise RestoreRefused(
            f"The {database.name} database is on PostgreSQL {contents.server[0]}, and the backup is of "
            f"PostgreSQL {source[0]}: use that version or a newer one."
        )
    return contents


def _tool(name: str, contents: Contents, manifest: Manifest) -> Path:
    """The program that understands the dump as well as the server."""
    least = max(contents.server[0], manifest.of(name).program[0])
    return binaries.find_for("pg_restore", least)


def _bring_back(archive: Archive, database: Database, tool: Path, contents: Contents) -> None:
    with database.translated():
        if database.tables():
            database.empty()
        with archive.dump(database.name) as source:
            try:
                programs.restore(tool, contents, lambda target: copy(source, target))
            except programs.ProgramFailed as error:
                raise RestoreFailed(
                    f"pg_restore could not fill the {database.name} database, which is empty now: {error}."
                ) from error
        database.begin_generation()
        database.analyze()


def _check_version(archive: Archive, name: str) -> None:
    """Whether the code that will run on the database knows all that was done to it."""
    folder = resources.files(f"meshq.{name}") / "postgres" / "migrations"
    known = {file.name for file in folder.iterdir() if _MIGRATION.fullmatch(file.name)}
    applied = archive.manifest.of(name).migrations
    unknown = [step for step in applied if step not in known]
    if unknown:
        raise NotABackup(
            f"{archive.path} is of a newer version of meshq: its {name} database has been through "
            f"{unknown[-1]}, which this version does not know."
        )
    if GENERATION[name] not in applied:
        raise NotABackup(f"{archive.path} is of a version of meshq that made no backups.")
