"""Where the databases are: those that settings name, or those of the data directory of `meshq up`."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from meshq.local import datadir, running
from meshq.local.backup.archive import EXECUTION, MANAGEMENT, NAMES
from meshq.local.backup.errors import BackupFailed
from meshq.local.plan import Kind
from meshq.local.ports import free_port
from meshq.local.servers import Postgres
from meshq.local.settings import LocalSettings
from meshq.local.state import SystemState


def _named(settings: LocalSettings) -> dict[str, str]:
    urls = {MANAGEMENT: settings.management_database_url, EXECUTION: settings.execution_database_url}
    return {name: url for name, url in urls.items() if url}


@contextlib.contextmanager
def for_backup(data: Path, settings: LocalSettings) -> Iterator[Mapping[str, str]]:
    """The URLs of databases that may be in use; where no system runs, its PostgreSQL is started meanwhile."""
    named = _named(settings)
    if len(named) == len(NAMES):
        yield named
    elif datadir.holder_of(data) is not None:
        port = SystemState.read(data).ports.get(Kind.POSTGRES, 0)
        running.state_of(data)
        yield {**_urls(Postgres(data / "postgres", port)), **named}
    elif not Postgres(data / "postgres", 0).initialized:
        raise BackupFailed(f"There is nothing to back up in {data}: it has no databases yet.")
    else:
        with _own(data) as server:
            yield {**_urls(server), **named}


@contextlib.contextmanager
def for_restore(data: Path, settings: LocalSettings) -> Iterator[Mapping[str, str]]:
    """The URLs of databases that nobody else uses; raises AlreadyRunning where a system runs on the data."""
    named = _named(settings)
    if len(named) == len(NAMES):
        yield named
    else:
        datadir.create(data)
        with _own(data) as server:
            yield {**_urls(server), **named}


@contextlib.contextmanager
def _own(data: Path) -> Iterator[Postgres]:
    """The PostgreSQL of a data directory on which no system runs, and none can be started meanwhile."""
    lock = datadir.Lock(data)
    lock.acquire()
    server = Postgres(data / "postgres", free_port(), databases=NAMES)
    try:
        server.start()
        server.wait_ready()
        yield server
    finally:
        server.stop()
        lock.release()


def _urls(server: Postgres) -> dict[str, str]:
    return {name: server.url(name) for name in NAMES}
