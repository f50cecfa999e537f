"""What a person sees while the system starts: a live board on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from meshq.local.state import ProcessState

if TYPE_CHECKING:
    from rich.table import Table

_COLOURS = {
    "waiting": "dim",
    "starting": "yellow",
    "ready": "green",
    "restarting": "red",
    "stopping": "yellow",
    "stopped": "dim",
}
_REFRESH = 8


class Board(Protocol):
    """Shows processes while they change."""

    def show(self, process: ProcessState) -> None:
        """A process entered another state, or has another process id."""

    def say(self, sentence: str) -> None:
        """Something else worth knowing."""

    def __enter__(self) -> Self:
        """Begin to show."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave what was shown last."""


def board_for(stream: TextIO | None = None) -> Board:
    """The board that suits the stream, standard output by default."""
    stream = sys.stdout if stream is None else stream
    return LiveBoard() if stream.isatty() else LineBoard(stream)


class LineBoard:
    """One line for each change of state."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._begin = time.monotonic()
        self._seen: dict[str, str] = {}

    def show(self, process: ProcessState) -> None:
        """Write a line unless the state is known or of no interest."""
        if self._seen.get(process.name) == process.state:
            return
        self._seen[process.name] = process.state
        if process.state != "waiting":
            address = f" on {process.address}" if process.address and process.state == "ready" else ""
            self.say(f"{time.monotonic() - self._begin:6.2f} s  {process.name} {process.state}{address}")

    def say(self, sentence: str) -> None:
        """Write a line."""
        print(sentence, file=self._stream, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is left to do."""


class LiveBoard:
    """A table that is drawn again and again until it is left."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - plain lines need none of it
        from rich.live import Live  # noqa: PLC0415

        self._console = Console()
        self._processes: dict[str, ProcessState] = {}
        self._ready_after: dict[str, float] = {}
        self._begin = time.monotonic()
        self._shown = False
        self._live = Live(
            get_renderable=lambda: table(self._processes, self._ready_after),
            console=self._console,
            refresh_per_second=_REFRESH,
        )

    def show(self, process: ProcessState) -> None:
        """Change a row; once the board is left, write a line."""
        before = self._processes.get(process.name)
        self._processes = {**self._processes, process.name: process}
        if process.state == "ready":
            self._ready_after.setdefault(process.name, time.monotonic() - self._begin)
        if not self._shown and (before is None or before.state != process.state):
            self.say(f"{process.name} is {process.state}")

    def say(self, sentence: str) -> None:
        """Write a line above the board, or below what is left of it."""
        self._console.print(sentence, highlight=False)

    def __enter__(self) -> Self:
        self._shown = True
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Draw the board for the last time."""
        self._live.stop()
        self._shown = False


def table(processes: Mapping[str, ProcessState], ready_after: Mapping[str, float]) -> "Table":
    """The board as a table; `ready_after` has seconds."""
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    drawn = Table(box=None, pad_edge=False)
    for title in ("process", "state", "address", "pid", "ready after"):
        drawn.add_column(
            title, header_style="bold", justify="right" if title in ("pid", "ready after") else "left"
        )
    for process in processes.values():
        after = ready_after.get(process.name)
        drawn.add_row(
            process.name,
            Text(process.state, style=_COLOURS.get(process.state, "")),
            process.address,
            str(process.pid or ""),
            f"{after:.2f} s" if after is not None else "",
        )
    return drawn
