"""`meshq backup` and `meshq restore`."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from meshq.local.backup.archive import Manifest
from meshq.local.backup.errors import DatabaseUnusable
from meshq.local.errors import LocalError
from meshq.local.settings import LocalSettings, default_data

_FAILED = 1
_UNITS = ("bytes", "KB", "MB", "GB", "TB")
_STEP = 1_000

DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="The data of `meshq up`, for databases that neither MESHQ_MANAGEMENT_DATABASE_URL nor "
        "MESHQ_EXECUTION_DATABASE_URL names [default: $MESHQ_DATA or ~/.local/share/meshq].",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    app.command()(backup)
    app.command()(restore)


def backup(
    target: Annotated[Path, typer.Argument(help="The file to write, or a folder for it.")],
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Back both databases up into one file, while everything goes on."""
    with _sentences():
        from meshq.local.backup.making import back_up  # noqa: PLC0415 - needs a driver

        path, manifest = back_up(target.absolute(), _directory(data), LocalSettings.load())
        if as_json:
            typer.echo(json.dumps({"file": str(path), **asdict(manifest)}, indent=1))
        else:
            typer.echo(f"{path} has {_summary(manifest)}, {_size(path.stat().st_size)}.")
            typer.echo(f"Check the copy that you keep: meshq restore --check {path.name}")


def restore(
    file: Annotated[Path, typer.Argument(help="A file that `meshq backup` has written.")],
    data: DataOption = None,
    force: Annotated[bool, typer.Option("--force", help="Drop what is in the databases.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Only look whether the file is complete.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Restore both databases from a backup, while nothing runs."""
    with _sentences():
        from meshq.local.backup import restoring  # noqa: PLC0415 - needs a driver

        path = file.absolute()
        if check:
            manifest, done = restoring.check(path), "is complete"
        else:
            manifest = restoring.restore(path, _directory(data), LocalSettings.load(), force=force)
            done = "is restored"
        if as_json:
            typer.echo(json.dumps({"file": str(path), **asdict(manifest)}, indent=1))
        else:
            typer.echo(f"{path} {done}: {_summary(manifest)}.")


def _summary(manifest: Manifest) -> str:
    counts = {**manifest.management.rows, **manifest.execution.rows}
    parts = ", ".join(f"{count:,} {what}" for what, count in counts.items())
    return f"{parts} as of {manifest.management.taken}"


def _size(count: float) -> str:
    for unit in _UNITS:
        if count < _STEP or unit == _UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == _UNITS[0] else f"{count:.1f} {unit}"
        count /= _STEP
    raise AssertionError


def _directory(data: Path | None) -> Path:
    return (data or default_data()).absolute()


@contextmanager
def _sentences() -> Iterator[None]:
    """What can go wrong ends in one sentence and a code, never in a traceback."""
    try:
        with _driver_named():
            yield
    except LocalError as error:
        typer.echo(f"meshq: {error}", err=True)
        raise typer.Exit(_FAILED) from None


@contextmanager
def _driver_named() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in {"psycopg", "psycopg_binary"}:
            raise
        raise DatabaseUnusable(
            "Backups need psycopg, which is not installed: install it with `pip install 'meshq[execution]'`."
        ) from error
