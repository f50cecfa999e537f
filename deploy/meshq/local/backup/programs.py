"""pg_dump and pg_restore."""

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
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
    options = ["--format=custom", "--lock-wait-timeout=60s", f"--snapshot={snapshot}"]
    with _running(program, options, contents, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        take(process.stdout)


def restore(program: Path, contents: Contents, give: Callable[[IO[bytes]], None]) -> None:
    """Fill an empty database, wholly or not at all; `give` writes the dump. Raises ProgramFailed."""
    options = ["--single-transaction", "--exit-on-error"]
    with _running(program, options, contents, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        # Where the pipe breaks the program says why.
        with suppress(BrokenPipeError):
            give(process.stdin)
        with suppress(BrokenPipeError):
            process.stdin.close()


@contextmanager
def _running(
    program: Path,
    options: Sequence[str],
    contents: Contents,
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program on a database; it is killed when the body fails. Raises ProgramFailed when it does."""
    words = [str(program), *options, "--no-owner", "--no-privileges", f"--dbname={contents.conninfo}"]
    with tempfile.TemporaryFile() as said:
        with subprocess.Popen(
            words, stdin=stdin, stdout=stdout, stderr=said, env=_environment(contents)
        ) as process:
            try:
                yield process
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
