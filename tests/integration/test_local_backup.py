"""Backups without a system: whole ones, and everything that is wrong with the others."""

import json
import stat
import uuid
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from meshq.contract.ids import new_task_id
from meshq.local import binaries
from meshq.local.backup import databases, programs
from meshq.local.backup.archive import NAMES
from meshq.local.backup.errors import (
    BackupFailed,
    DatabaseUnusable,
    NotABackup,
    RestoreFailed,
    RestoreRefused,
)
from meshq.local.backup.making import back_up
from meshq.local.backup.restoring import check, restore
from meshq.local.datadir import Lock
from meshq.local.errors import AlreadyRunning, MissingBinary
from meshq.local.servers import Postgres
from meshq.local.settings import LocalSettings
from meshq.mesh.postgres.migrate import LOCK, migrate

NOWHERE = Path("/nonexistent")
TASK = str(uuid.UUID(bytes=new_task_id().bytes))
OPEN = (
    "INSERT INTO open_tasks (id, ready_ms, touched_ms, max_attempts, state, tenant, queue, type, spec) "
    f"VALUES ('{TASK}', 1, 1, 3, 3, 'default', 'q', 't', '\\x00ff')"
)
QUEUE = (
    "INSERT INTO queues (tenant, name, create_ms, version) "
    "VALUES ('default', 'q', 1, nextval('queue_versions'))"
)
END = (
    "INSERT INTO attempts (task_id, attempt, retention_days, outcome, lease_epoch, lease_number, start_ms, "
    "end_ms, tenant, worker_id, success, error) "
    f"VALUES ('{TASK}', 1, retention_days('{TASK}'), 1, 7, 1, 1, 2, 'default', 'w', '\\x01', '')"
)


@pytest.fixture
def make(postgres_server: Postgres) -> Iterator[Callable[[], LocalSettings]]:
    """Makes two empty databases."""
    postgres_server.start()
    postgres_server.wait_ready()
    made: list[str] = []

    def pair() -> LocalSettings:
        names = [f"backup_{uuid.uuid4().hex[:10]}" for _ in NAMES]
        made.extend(names)
        management, execution = (postgres_server.create_database(name) for name in names)
        return LocalSettings(management_database_url=management, execution_database_url=execution)

    yield pair
    for name in made:
        postgres_server.drop_database(name)


def ask(url: str, query: str) -> Any:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(query.encode())
        return cursor.fetchone() if cursor.description else None


def names_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.fixture
async def full(make: Callable[[], LocalSettings]) -> LocalSettings:
    """Two databases with a task that has ended as far as execution knows."""
    settings = make()
    for url, package, rows in (
        (settings.management_database_url, "meshq.management.postgres", [OPEN, QUEUE]),
        (settings.execution_database_url, "meshq.execution.postgres", [END]),
    ):
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await migrate(connection, package)
            for row in rows:
                await connection.execute(row.encode())
    return settings


@pytest.fixture
def made(full: LocalSettings, tmp_path: Path) -> Path:
    """A backup of the full databases."""
    path, _ = back_up(tmp_path / "b.backup", NOWHERE, full)
    return path


def test_what_was_backed_up_comes_back(
    full: LocalSettings, make: Callable[[], LocalSettings], tmp_path: Path
) -> None:
    path, manifest = back_up(tmp_path, NOWHERE, full)
    assert path.parent == tmp_path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert names_in(tmp_path) == [path.name]
    assert manifest.management.rows == {"open tasks": 1, "queues": 1}
    assert manifest.management.taken < manifest.execution.taken
    assert check(path) == manifest
    other = make()
    assert restore(path, NOWHERE, other, force=False) == manifest
    assert ask(other.management_database_url, "SELECT id::text, spec FROM open_tasks") == (TASK, b"\x00\xff")
    assert ask(other.execution_database_url, "SELECT task_id::text FROM attempts") == (TASK,)
    query = "SELECT generation::text, first_epoch FROM generations"
    before, after = ask(full.execution_database_url, query), ask(other.execution_database_url, query)
    assert before[0] != after[0]
    assert before[1] < after[1]
    # What execution knows of queues is of before.
    assert ask(full.management_database_url, "SELECT version FROM queues") == (1,)
    assert ask(other.management_database_url, "SELECT version FROM queues") == (1_000_001,)
    assert ask(other.management_database_url, "SELECT nextval('queue_versions')") == (1_000_002,)
    # It can be backed up again.
    assert back_up(tmp_path / "again", NOWHERE, other)[1].management.rows == manifest.management.rows


def test_databases_that_are_gone_are_made(full: LocalSettings, made: Path, postgres_server: Postgres) -> None:
    for url in (full.management_database_url, full.execution_database_url):
        postgres_server.drop_database(url.rpartition("/")[2])
    restore(made, NOWHERE, full, force=False)
    assert ask(full.management_database_url, "SELECT count(*) FROM open_tasks") == (1,)


def test_force_replaces_what_is_there(full: LocalSettings, made: Path) -> None:
    with pytest.raises(
        RestoreRefused, match=r"management database is not empty: use another one, or --force"
    ):
        restore(made, NOWHERE, full, force=False)
    ask(full.management_database_url, "DELETE FROM open_tasks")
    ask(full.execution_database_url, "CREATE TABLE of_a_newer_version (n int)")
    restore(made, NOWHERE, full, force=True)
    assert ask(full.management_database_url, "SELECT count(*) FROM open_tasks") == (1,)
    assert ask(full.execution_database_url, "SELECT to_regclass('of_a_newer_version')") == (None,)


def test_databases_in_use_are_refused(full: LocalSettings, made: Path) -> None:
    for name, url in (
        ("management", full.management_database_url),
        ("execution", full.execution_database_url),
    ):
        with (
            psycopg.connect(url, application_name="an-instance"),
            pytest.raises(
                RestoreRefused, match=rf"The {name} database is in use \(1 connection.*an-instance"
            ),
        ):
            restore(made, NOWHERE, full, force=True)
    assert ask(full.management_database_url, "SELECT count(*) FROM open_tasks") == (1,)


def test_no_instance_starts_during_a_restore() -> None:
    assert databases.MIGRATION_LOCK == LOCK


def test_a_running_system_is_refused(made: Path, server_folder: Path) -> None:
    data = server_folder / "running"
    data.mkdir()
    lock = Lock(data)
    lock.acquire()
    with pytest.raises(AlreadyRunning, match=r"meshq runs on .* already"):
        restore(made, data, LocalSettings(), force=True)
    lock.release()


def test_what_is_no_backup_is_refused(made: Path, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("not a backup")
    short = tmp_path / "short"
    short.write_bytes(made.read_bytes()[:-200])
    empty = tmp_path / "empty"
    empty.touch()
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("a", "b")
    for path, sentence in (
        (text, "text is not a backup of meshq"),
        (empty, "empty is not a backup of meshq"),
        (short, "short is cut off: its end is missing"),
        (other, "other.zip is not a backup of meshq: it has no manifest"),
        (tmp_path / "none", "There is no file .*none"),
        (tmp_path, "cannot be read: Is a directory"),
    ):
        with pytest.raises(NotABackup, match=sentence):
            check(path)


def test_damage_is_found(made: Path, tmp_path: Path) -> None:
    content = bytearray(made.read_bytes())
    content[len(content) // 3] ^= 1
    damaged = tmp_path / "damaged"
    damaged.write_bytes(content)
    with pytest.raises(NotABackup, match="damaged is damaged"):
        check(damaged)


def changed(made: Path, path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The backup with another manifest."""
    with zipfile.ZipFile(made) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "manifest.json":
                manifest = json.loads(content)
                change(manifest)
                content = json.dumps(manifest).encode()
            new.writestr(name, content)
    return path


def test_other_formats_and_newer_versions_are_refused(
    made: Path, tmp_path: Path, make: Callable[[], LocalSettings]
) -> None:
    later = changed(made, tmp_path / "later", lambda manifest: manifest.update(format=2))
    with pytest.raises(NotABackup, match="has format 2, and this version of meshq reads format 1"):
        check(later)
    newer = changed(
        made, tmp_path / "newer", lambda manifest: manifest["execution"]["migrations"].append("0999_x.sql")
    )
    with pytest.raises(NotABackup, match=r"newer version of meshq: its execution database .* 0999_x.sql"):
        check(newer)
    garbled = changed(made, tmp_path / "garbled", lambda manifest: manifest.pop("execution"))
    with pytest.raises(NotABackup, match="its manifest cannot be read"):
        check(garbled)
    future = changed(
        made, tmp_path / "future", lambda manifest: manifest["management"].update(server=[99, 0])
    )
    with pytest.raises(RestoreRefused, match=r"on PostgreSQL \d+, and the backup is of PostgreSQL 99"):
        restore(future, NOWHERE, make(), force=False)
    # Nothing was touched.
    with pytest.raises(RestoreRefused):
        restore(future, NOWHERE, make(), force=True)


def test_swapped_and_doubled_databases_are_refused(
    full: LocalSettings, made: Path, tmp_path: Path, make: Callable[[], LocalSettings]
) -> None:
    swapped = LocalSettings(
        management_database_url=full.execution_database_url,
        execution_database_url=full.management_database_url,
    )
    with pytest.raises(
        DatabaseUnusable, match="MESHQ_MANAGEMENT_DATABASE_URL names a database of meshq, but not"
    ):
        back_up(tmp_path / "x", NOWHERE, swapped)
    with pytest.raises(DatabaseUnusable, match="management database is not one of meshq"):
        back_up(tmp_path / "x", NOWHERE, make())
    empty = make()
    doubled = replace(empty, execution_database_url=empty.management_database_url)
    with pytest.raises(RestoreRefused, match="Both settings name one database"):
        restore(made, NOWHERE, doubled, force=False)
    assert names_in(tmp_path) == ["b.backup"]


def test_databases_of_older_versions_are_refused(full: LocalSettings, tmp_path: Path) -> None:
    ask(full.execution_database_url, "DELETE FROM migrations WHERE number = 7")
    with pytest.raises(
        DatabaseUnusable, match="execution database is of a version of meshq that made no backups"
    ):
        back_up(tmp_path / "x", NOWHERE, full)


def test_targets_that_cannot_be_written_are_refused(full: LocalSettings, made: Path, tmp_path: Path) -> None:
    with pytest.raises(BackupFailed, match="exists already"):
        back_up(made, NOWHERE, full)
    with pytest.raises(BackupFailed, match="There is no folder"):
        back_up(tmp_path / "no" / "folder", NOWHERE, full)
    with pytest.raises(BackupFailed, match="nothing to back up in /nonexistent"):
        back_up(tmp_path / "x", NOWHERE, LocalSettings())
    with pytest.raises(BackupFailed, match="cannot be written"):
        back_up(tmp_path / ("x" * 300), NOWHERE, full)


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_a_program_that_is_missing_or_too_old_is_named(
    full: LocalSettings, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = program(tmp_path / "pg_dump", "echo 'pg_dump (PostgreSQL) 12.3'")
    monkeypatch.setenv("MESHQ_BIN_PG_DUMP", str(old))
    with pytest.raises(MissingBinary, match=r"pg_dump \d+ or newer is needed .*pg_dump is version 12"):
        back_up(tmp_path / "x", NOWHERE, full)
    monkeypatch.setenv("MESHQ_BIN_PG_DUMP", "/nonexistent/pg_dump")
    with pytest.raises(MissingBinary, match="MESHQ_BIN_PG_DUMP names /nonexistent/pg_dump, which is not"):
        back_up(tmp_path / "x", NOWHERE, full)
    monkeypatch.setattr(binaries, "_all_of", lambda _program: iter(()))
    with pytest.raises(MissingBinary, match=r"pg_restore \d+ or newer is needed for PostgreSQL \d+: install"):
        restore(made, NOWHERE, full, force=True)
    assert ask(full.management_database_url, "SELECT count(*) FROM open_tasks") == (1,)


def test_a_program_that_fails_says_why_and_leaves_nothing(
    full: LocalSettings, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = program(
        tmp_path / "failing",
        "[ \"$1\" = --version ] && echo 'pg_x (PostgreSQL) 99.0' && exit; echo part; echo why >&2; exit 3",
    )
    monkeypatch.setenv("MESHQ_BIN_PG_DUMP", str(failing))
    with pytest.raises(BackupFailed, match="pg_dump could not read the management database: why"):
        back_up(tmp_path / "x", NOWHERE, full)
    assert names_in(tmp_path) == ["b.backup", "failing"]
    monkeypatch.setenv("MESHQ_BIN_PG_RESTORE", str(failing))
    with pytest.raises(RestoreFailed, match=r"pg_restore could not fill the execution database, .*: why"):
        restore(made, NOWHERE, full, force=True)
    monkeypatch.delenv("MESHQ_BIN_PG_RESTORE")
    restore(made, NOWHERE, full, force=True)
    assert ask(full.management_database_url, "SELECT count(*) FROM open_tasks") == (1,)


def test_passwords_stay_out_of_command_lines(full: LocalSettings) -> None:
    scheme, _, rest = full.management_database_url.partition("://")
    user, _, place = rest.partition("@")
    with databases.Database("management", f"{scheme}://{user}:secret@{place}") as database:
        contents = database.contents()
    assert contents.password == "secret"
    assert "secret" not in contents.conninfo
    assert programs._environment(contents)["PGPASSWORD"] == "secret"


def test_commands_answer_in_sentences(
    full: LocalSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from meshq.cli.app import application

    monkeypatch.setenv("MESHQ_MANAGEMENT_DATABASE_URL", full.management_database_url)
    monkeypatch.setenv("MESHQ_EXECUTION_DATABASE_URL", full.execution_database_url)

    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(application(words), list(words))
        return done.exit_code, done.output

    path = str(tmp_path / "b")
    code, said = run("backup", path)
    assert code == 0
    assert "b has 1 open tasks, 1 queues, 0 deferred tasks as of" in said
    assert run("restore", "--check", path)[0] == 0
    code, said = run("restore", "--check", "--json", path)
    assert json.loads(said)["management"]["rows"]["open tasks"] == 1
    sentence = "The management database is not empty: use another one, or --force, which drops what is in it."
    assert run("restore", path) == (1, f"meshq: {sentence}\n")
    assert run("restore", "--force", path)[0] == 0
    assert run("backup", path)[1] == f"meshq: {path} exists already: choose another name, or move it away.\n"
