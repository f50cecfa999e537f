"""What happened, in the order in which it was noticed: calls, answers, what was seen, and what was broken.

Everything is kept in memory for the checker and written as JSON lines for people. Times are seconds since the
epoch: all processes of a run are on one machine and share its clock.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from meshq.client import TaskState


@dataclass(frozen=True, slots=True)
class Sent:
    """A creation that a client began: the only source of tasks.

    Attributes:
        serial: The number that the task carries in its payload; each is used once.
        kind: The name of its kind in `workload.KINDS`.
        key: Its ordering, limit or unique key; empty without one.
        delay: The start delay in seconds that was asked for.
    """

    time: float
    serial: int
    kind: str
    key: str = ""
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Answered:
    """How a creation ended for its client: with an id, from when on the task is accepted, or an error."""

    time: float
    serial: int
    task_id: str | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """A task as an event or a read showed it; of one source in the order in which they came."""

    time: float
    source: str
    task_id: str
    attempt: int
    state: TaskState


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """A client asked for a task to end."""

    time: float
    task_id: str


@dataclass(frozen=True, slots=True)
class CallFailed:
    """A read, a watch or a cancellation ended with an error in spite of the client's retries."""

    time: float
    call: str
    error: str


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that was done to the system."""

    time: float
    what: str


Entry = Sent | Answered | Seen | CancelAsked | CallFailed | Mark
_E = TypeVar("_E", Sent, Answered, Seen, CancelAsked, CallFailed, Mark)


@dataclass
class History:
    """All entries of one run; with a file, they are written there as well."""

    path: Path | None = None
    entries: list[Entry] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("w", encoding="utf-8") if self.path else None

    def add(self, entry: Entry) -> None:
        """Note an entry."""
        self.entries.append(entry)
        if self._file is not None:
            line = {"entry": type(entry).__name__, **_fields(entry)}
            self._file.write(json.dumps(line) + "\n")

    def mark(self, what: str) -> float:
        """Note that something is done to the system now; returns the time."""
        now = time.time()
        self.add(Mark(now, what))
        return now

    def of(self, kind: type[_E]) -> Iterator[_E]:
        """The entries of one kind."""
        return (entry for entry in self.entries if isinstance(entry, kind))

    def close(self) -> None:
        """Write what is left."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _fields(entry: Entry) -> dict[str, object]:
    return {one.name: getattr(entry, one.name) for one in dataclasses.fields(entry)}
