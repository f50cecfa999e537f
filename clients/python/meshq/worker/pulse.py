"""Signs of life for tasks with a heartbeat_timeout, where their handlers cannot or need not give any.

The worker speaks for a task as long as it waits for its handler, once when the handler begins, and with
`task(..., auto_heartbeat=True)` as long as it runs.
"""

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
    """Beats for jobs, in a thread that lives as long as there are any.

    Of a running handler it says that its process lives and that the threads there get their turns, no more.

    Args:
        send: Where heartbeats go.
    """

    def __init__(self, send: Callable[[LeaseProgress], None]) -> None:
        self._send = send
        self._changed = threading.Condition()
        self._due: dict[Job, float] = {}
        self._running = False

    def add(self, job: Job) -> None:
        """Beat for a job now, and for as long as its handler does not."""
        self._send(LeaseProgress(lease_token=job.token))
        if not _is_left_to_the_worker(job):
            return
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
        for job in [job for job in self._due if not _is_left_to_the_worker(job)]:
            del self._due[job]
        for job, due in self._due.items():
            if due <= now:
                self._due[job] = now + _interval(job)
                self._send(LeaseProgress(lease_token=job.token))
        return min(self._due.values()) - now if self._due else None


def _is_left_to_the_worker(job: Job) -> bool:
    if job.ended or job.stop is Stop.LEASE_LOST:
        return False
    return not job.claimed or job.handler.auto_heartbeat


def _interval(job: Job) -> float:
    seconds: float = job.task.heartbeat_timeout.ToNanoseconds() / 1e9
    return seconds / BEATS
