"""The live view of one task, and its plain form where nobody looks at a terminal."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from meshq.cli import drawings
from meshq.cli.output import printable
from meshq.cli.task_drawings import attempts_made

if TYPE_CHECKING:  # imports grpc
    from meshq.client.models import Task, TaskEvent, TaskOutput, TaskProgress

_BAR_WIDTH = 40


class View:
    """What is known of a watched task, drawn on demand.

    Attributes:
        task: The task as it was last told.
        progress: Its handler's latest word; None before the first.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.task: Task | None = None
        self.progress: TaskProgress | None = None
        self._clock = clock
        self._since = clock()
        self._spinner = Spinner("dots")

    def apply(self, event: TaskEvent) -> TaskOutput | None:
        """Take an event; output is given back, because it is printed and not kept."""
        from meshq.client.models import Task, TaskProgress  # noqa: PLC0415

        if isinstance(event, Task):
            if self.task is None or event.attempt != self.task.attempt:
                self.progress = None
            self.task = event
        elif isinstance(event, TaskProgress):
            self.progress = event
        else:
            return event
        return None

    def __rich__(self) -> RenderableType:
        """The view as it stands, for rich."""
        if self.task is None:
            return self._spinner
        lines: list[RenderableType] = [self._headline(self.task)]
        if self.progress is not None:
            lines.append(self._bar(self.progress))
        return Group(*lines)

    def _headline(self, task: Task) -> RenderableType:
        line = Table.grid(padding=(0, 1))
        passed = dt.timedelta(seconds=self._clock() - self._since)
        line.add_row(
            Text("✓" if task.succeeded else "✗") if task.done else self._spinner,
            drawings.state(task.state),
            Text(printable(task.type), style="bold"),
            Text(task.task_id, no_wrap=True),
            Text(f"attempt {attempts_made(task)}"),
            Text(printable(task.worker_id)),
            Text(drawings.span(passed), style="dim"),
        )
        return line

    def _bar(self, progress: TaskProgress) -> RenderableType:
        line = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=1.0, completed=progress.fraction, width=_BAR_WIDTH)
        line.add_row(" ", bar, Text(f"{progress.fraction:.0%}"), Text(printable(progress.message)))
        return line


def live(events: Iterable[TaskEvent], console: Console) -> Task | None:
    """Show events on a terminal until they end, and return the task as it was last told.

    Output of the handler scrolls by above the view.
    """
    view = View()
    with Live(view, console=console, refresh_per_second=10, transient=True) as display:
        for event in events:
            output = view.apply(event)
            if output is not None:
                console.print(Text(printable(output.text.rstrip("\n"))))
            display.refresh()
    return view.task


def plain(events: Iterable[TaskEvent], write: Callable[[str], None]) -> Task | None:
    """Write events as lines of text until they end, and return the task as it was last told."""
    view = View()
    for event in events:
        output = view.apply(event)
        write(printable(output.text.rstrip("\n") if output else line(event)))
    return view.task


def line(event: TaskEvent) -> str:
    """A change or a progress report as one line."""
    from meshq.client.models import Task, TaskProgress  # noqa: PLC0415

    if isinstance(event, Task):
        parts = [event.state, f"attempt {attempts_made(event)}"]
        parts += [f"at {event.worker_id}"] if event.worker_id else []
        return ", ".join(parts)
    if isinstance(event, TaskProgress):
        return f"{event.fraction:.0%} {event.message}".rstrip()
    return event.text
