"""Signs of life for handlers that leave them to the worker: `task(..., auto_heartbeat=True)`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from meshq.v1.worker_service_pb2 import LeaseProgress
from meshq.worker.jobs import Job, Stop

BEATS: Final = 3
"""Heartbeats within a task's heartbeat_timeout, so that one may come late."""


class Pulse:
    """Beats for jobs until they end or lose their lease, in a thread that lives as long as there are any.

    It says that the process of the handlers lives and that its threads get their turns, no more.

    Args:
        send: Where heartbeats go.
    """

    def __init__(self, send: Callable[[LeaseProgress], None]) -> None:
        self._send = send
        self._changed = threading.Condition()
        self._due: dict[Job, float] = {}
        self._running = False

    def add(self, job: Job) -> None:
        """Beat for a job from now on."""
        with self._changed:
            self._due[job] = time.monotonic() + _interval(job)
            self._changed.notify()
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="meshq-pulse", daemon=True).start()

    def _run(self) -> None:
        with self._changed:
            while (wait := self._beat(time.monotonic())) is not None:
                self._changed.wait(wait)
            self._running = False

    def _beat(self, now: float) -> float | None:
        """Beat for whom it is time; returns when it is time again, None if there is nobody left."""
        for job in [job for job in self._due if job.ended or job.stop is Stop.LEASE_LOST]:
            del self._due[job]
        for job, due in self._due.items():
            if due <= now:
                self._due[job] = now + _interval(job)
                self._send(LeaseProgress(lease_token=job.token))
        return min(self._due.values()) - now if self._due else None


def _interval(job: Job) -> float:
    seconds: float = job.task.heartbeat_timeout.ToNanoseconds() / 1e9
    return seconds / BEATS
