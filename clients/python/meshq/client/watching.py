"""What a watch over several streams has told already."""

from __future__ import annotations

from meshq.client.models import Task, TaskEvent, TaskState


class Watched:
    """Drops what a resumed watch tells again.

    A new stream begins with the task as it stands; that is news only if state or attempt moved.

    Attributes:
        ended: Whether the task's end was told.
    """

    def __init__(self) -> None:
        self.ended = False
        self._last: tuple[int, TaskState] | None = None

    def is_news(self, event: TaskEvent) -> bool:
        """Whether to tell the event."""
        if not isinstance(event, Task):
            return True
        here = (event.attempt, event.state)
        news = here != self._last
        self._last = here
        self.ended = event.done
        return news
