"""What is remembered in the data directory: the ports that were chosen, and which processes run now.

The file is replaced as a whole, so that a reader never sees half of it. Whether a system runs is not read
from it but from the lock, which ends with the process that holds it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

FILE = "state.json"


@dataclass(frozen=True)
class ProcessState:
    """One line of `meshq status`."""

    name: str
    kind: str
    state: str
    address: str = ""
    pid: int | None = None
    restarts: int = 0
    since: float = 0.0
    """Unix time of the last change."""


@dataclass(frozen=True)
class SystemState:
    """The content of the file."""

    edge: str = ""
    ready: bool = False
    supervisor: int | None = None
    ports: Mapping[str, int] = field(default_factory=dict)
    processes: tuple[ProcessState, ...] = ()

    @classmethod
    def read(cls, data: Path) -> Self:
        """The remembered state; an empty one if there is none or it cannot be understood."""
        try:
            content = json.loads((data / FILE).read_text(encoding="utf-8"))
            processes = tuple(ProcessState(**process) for process in content.pop("processes"))
            return cls(processes=processes, **content)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return cls()

    def write(self, data: Path) -> None:
        """Replace the file."""
        fresh = data / f"{FILE}.new"
        fresh.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        fresh.replace(data / FILE)
