"""What handlers say about themselves, from the handlers to a frame. No I/O."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from meshq.contract.limits import MAX_FRAME_ITEMS, SOFT_FRAME_BYTES
from meshq.v1.worker_service_pb2 import Heartbeat, LeaseProgress

PROGRESS_SECONDS: Final = 0.1


class Words:
    """The latest word of each lease that was not sent yet.

    Words of all leases leave together every tenth of a second. Those of a lease that ends leave at once,
    before its result: after it nobody would listen.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: dict[bytes, LeaseProgress] = {}
        self._last: list[LeaseProgress] = []
        self._sent_at = clock() - PROGRESS_SECONDS

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, word: LeaseProgress) -> None:
        """Take a word; it replaces an earlier one of its kind."""
        with self._lock:
            before = self._waiting.get(word.lease_token)
            self._waiting[word.lease_token] = word if before is None else joined(before, word)

    def end(self, token: bytes) -> None:
        """A lease ends."""
        if token in self._waiting:  # Handlers that say nothing cost no lock.
            with self._lock:
                word = self._waiting.pop(token, None)
                if word is not None and _says_something(word):
                    self._last.append(word)

    def take(self, *, all_of_them: bool = False) -> list[LeaseProgress]:
        """What is to be sent by now.

        Args:
            all_of_them: Whether to take also what could wait.
        """
        if not self._waiting and not self._last:
            return []
        now = self._clock()
        with self._lock:
            words, self._last = self._last, []
            if all_of_them or now - self._sent_at >= PROGRESS_SECONDS:
                words += self._waiting.values()
                self._waiting = {}
                self._sent_at = now
        return words


def joined(before: LeaseProgress, after: LeaseProgress) -> LeaseProgress:
    """One word for two of the same lease."""
    word = LeaseProgress()
    word.CopyFrom(after if after.HasField("fraction") else before)
    latest = after if after.HasField("checkpoint") else before
    if latest.HasField("checkpoint"):
        word.checkpoint.CopyFrom(latest.checkpoint)
    return word


def frames(words: Iterable[LeaseProgress]) -> Iterator[Heartbeat]:
    """Cut words into frames, each with at least one."""
    frame = Heartbeat()
    size = 0
    for word in words:
        frame.progress.append(word)
        size += word.ByteSize()
        if size >= SOFT_FRAME_BYTES or len(frame.progress) == MAX_FRAME_ITEMS:
            yield frame
            frame, size = Heartbeat(), 0
    if frame.progress:
        yield frame


def _says_something(word: LeaseProgress) -> bool:
    return word.HasField("fraction") or word.HasField("checkpoint")
