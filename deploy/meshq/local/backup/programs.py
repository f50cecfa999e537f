"""pg_dump and pg_restore."""

import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from meshq.local import binaries
from meshq.local.backup.databases import Contents

_LAST_LINES = 3


class ProgramFailed(Exception):
    """A program ended badly; its text is what it has said."""


def find(name: str, contents: Contents) -> Path:
    """The program that is new enough for the server of a database; raises MissingBinary."""
    return binaries.find_for(name, contents.server[0])


def dump(program: Path, contents: Contents, snapshot: str, take: Callable[[IO[bytes]], None]) -> None:
    """Dump a database as it was in a snapshot; `take` reads the dump. Raises ProgramFailed."""
    words = [
        str(program),
        "--format=custom",
        "--no-owner",
        "--no-privileges",
        "--lock-wait-timeout=60s",
        f"--snapshot={snapshot}",
        f"--dbname={contents.conninfo}",
    ]
    with tempfile.TemporaryFile() as said:
        with subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, env=_environment(contents)
        ) as process:
            assert process.stdout is not None
            try:
                take(process.stdout)
            except BaseException:
                process.kill()
                raise
        _check(process.returncode, said)


def restore(program: Path, contents: Contents, give: Callable[[IO[bytes]], None]) -> None:
    """Fill an empty database, wholly or not at all; `give` writes the dump. Raises ProgramFailed."""
    words: Sequence[str] = [
        str(program),
        "--single-transaction",
        "--exit-on-error",
        "--no-owner",
        "--no-privileges",
        f"--dbname={contents.conninfo}",
    ]
    with tempfile.TemporaryFile() as said:
        with subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said, env=_environment(contents)
        ) as process:
            assert process.stdin is not None
            try:
                give(process.stdin)
                process.stdin.close()
            except BrokenPipeError:
                pass  # it says why
            except BaseException:
                process.kill()
                raise
        _check(process.returncode, said)


def _environment(contents: Contents) -> dict[str, str]:
    """Passwords do not belong into command lines, which everybody on the machine sees."""
    return {**os.environ, **({"PGPASSWORD": contents.password} if contents.password else {})}


def _check(code: int, said: IO[bytes]) -> None:
    if code == 0:
        return
    said.seek(0)
    lines = said.read().decode(errors="replace").strip().splitlines()
    raise ProgramFailed(" | ".join(lines[-_LAST_LINES:]) or f"it ended with code {code}")
