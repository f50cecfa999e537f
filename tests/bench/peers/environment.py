"""A virtual environment for each peer, below one folder: their requirements exclude each other.

Between them the peers want three major versions of the same Redis client.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements")
_STAMP = "installed.txt"


def interpreter(folder: Path, name: str) -> Path:
    """The interpreter of one of the environments, which is made if it is missing or out of date."""
    home = folder / name
    wanted = REQUIREMENTS.joinpath(f"{name}.txt").read_text()
    stamp = home / _STAMP
    python = home / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != wanted:
        venv.create(home, clear=True, symlinks=True)
        install = ("install", "--quiet", "--disable-pip-version-check", "--requirement")
        file = REQUIREMENTS / f"{name}.txt"
        # The pip of this environment: a pip in each would take longer to install than the peers.
        subprocess.run([sys.executable, "-m", "pip", "--python", python, *install, file], check=True)
        stamp.write_text(wanted)
    return python
