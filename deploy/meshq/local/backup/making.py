"""Making a backup of both databases, consistent with each other, while everything goes on.

The ledger's moment is taken first and execution's directly after it, before anything is dumped. So whatever
the ledger knows as ended has its result in execution's database. What that knows beyond the ledger, ends of
attempts that the ledger has not heard of, is reported to it again after a restore.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from meshq.local import binaries
from meshq.local.backup import programs
from meshq.local.backup.archive import EXECUTION, MANAGEMENT, NAMES, Dump, Manifest, Writer, copy, writing
from meshq.local.backup.databases import Contents, Database, Snapshot
from meshq.local.backup.errors import BackupFailed
from meshq.local.backup.places import for_backup
from meshq.local.settings import LocalSettings


def back_up(target: Path, data: Path, settings: LocalSettings) -> tuple[Path, Manifest]:
    """Make a backup.

    Args:
        target: The file to write, or a folder in which it gets a name that says when.
        data: The data directory of `meshq up`, for databases that settings do not name.
        settings: May name the databases.

    Raises:
        LocalError: It could not be made; nothing is left behind.
    """
    now = datetime.now(UTC)
    path = _file(target, now)
    with for_backup(data, settings) as urls, contextlib.ExitStack() as opened:
        databases = {name: opened.enter_context(Database(name, urls[name])) for name in NAMES}
        contents = {name: database.check() for name, database in databases.items()}
        tools = {name: programs.find("pg_dump", contents[name]) for name in NAMES}
        with writing(path) as archive, _moments(databases) as moments:
            dumps = {name: _dump(archive, name, tools[name], contents[name], moments[name]) for name in NAMES}
            made = now.isoformat(timespec="seconds")
            manifest = Manifest(metadata.version("meshq"), made, dumps[MANAGEMENT], dumps[EXECUTION])
            archive.manifest(manifest)
    return path, manifest


def _file(target: Path, now: datetime) -> Path:
    try:
        path = target / f"meshq-{now:%Y%m%dT%H%M%SZ}.backup" if target.is_dir() else target
        if not path.parent.is_dir():
            raise BackupFailed(f"There is no folder {path.parent}.")
    except OSError as error:
        raise BackupFailed(f"{target} cannot be written: {error.strerror}.") from error
    return path


@contextlib.contextmanager
def _moments(databases: dict[str, Database]) -> Iterator[dict[str, Snapshot]]:
    """One moment of each database, the ledger's before execution's."""
    with contextlib.ExitStack() as held:
        moments = {}
        for name in (MANAGEMENT, EXECUTION):
            held.enter_context(databases[name].translated())
            moments[name] = held.enter_context(databases[name].snapshot())
        yield moments


def _dump(archive: Writer, name: str, tool: Path, contents: Contents, moment: Snapshot) -> Dump:
    about = Dump(
        contents.server, binaries.version(tool) or (0, 0), moment.taken, contents.migrations, moment.rows
    )
    with archive.dump(name) as file:
        try:
            programs.dump(tool, contents, moment.name, lambda source: copy(source, file))
        except programs.ProgramFailed as error:
            raise BackupFailed(f"pg_dump could not read the {name} database: {error}.") from error
        return replace(about, size=file.size, sha256=file.sha256)
