"""Plain functions in threads, without a submission per task.

All threads take from one deque. A thread that is awake goes on taking, so that ten thousand cheap tasks
cost no more than ten thousand turns of one loop. How many threads are awake follows from what they do: a
pacer looks every millisecond while tasks wait. If the process hardly uses its core, the handlers are
blocked, and it doubles the threads, up to the slots within a few milliseconds. If the core is busy, more
threads would only fight over the interpreter lock, and it adds one at a time, and only while no task is
begun at all.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Final

from meshq.worker import outcomes
from meshq.worker.context import News
from meshq.worker.jobs import Board, Job, call

PACE_SECONDS: Final = 0.001
MAX_PACE_SECONDS: Final = 0.02
BUSY_SHARE: Final = 0.7


class ThreadRunner:
    """Runs jobs in up to `slots` threads."""

    def __init__(self, slots: int, board: Board, news: News) -> None:
        self._slots = slots
        self._board = board
        self._news = news
        self._waiting: deque[Job] = deque()
        self._wakeups: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._taken_at = 0.0
        self._lock = threading.Lock()
        self._pacing = threading.Event()
        self._pacer: threading.Thread | None = None
        self._stopped = False

    def submit(self, jobs: Sequence[Job]) -> None:
        """Take jobs; returns at once."""
        self._waiting.extend(jobs)
        if self._nobody_takes():
            self._wake(1)
        self._pacing.set()

    def stop(self) -> None:
        """End the threads that wait; what runs is left alone, as nothing can end a thread."""
        self._stopped = True
        self._pacing.set()
        for _ in self._threads:
            self._wakeups.put(False)

    def _nobody_takes(self) -> bool:
        return self._idle == len(self._threads) or outcomes.now() - self._taken_at > PACE_SECONDS

    def _wake(self, count: int) -> None:
        with self._lock:
            for _ in range(count):
                if self._idle > 0:
                    self._idle -= 1
                    self._wakeups.put(True)
                elif len(self._threads) < self._slots:
                    self._add_thread()
            if self._pacer is None:
                self._pacer = threading.Thread(target=self._pace, name="meshq-pacer", daemon=True)
                self._pacer.start()

    def _add_thread(self) -> None:
        name = f"meshq-handler-{len(self._threads)}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while not self._stopped:
            self._take()
            with self._lock:
                self._idle += 1
            # A job may have come between the last look and being counted as idle; whoever brought it
            # found no idle thread then.
            if self._waiting:
                self._wake(1)
            if not self._wakeups.get():
                return

    def _take(self) -> None:
        waiting, finish, news = self._waiting, self._board.finish, self._news
        while waiting:
            try:
                job = waiting.popleft()
            except IndexError:
                return
            if job.claim():
                self._taken_at = job.started
                finish(job, call(job, news))
            else:
                finish(job, job.stopped())

    def _pace(self) -> None:
        pace = PACE_SECONDS
        while not self._stopped:
            if not self._waiting:
                self._pacing.clear()
                if not self._waiting:
                    self._pacing.wait()
                pace = PACE_SECONDS
            pace = PACE_SECONDS if self._look(pace) else min(pace * 2, MAX_PACE_SECONDS)

    def _look(self, seconds: float) -> bool:
        """Watch the threads for a moment; True when some were added."""
        taken_at, cpu, wall = self._taken_at, time.process_time(), time.monotonic()
        time.sleep(seconds)
        if not self._waiting:
            return False
        awake = len(self._threads) - self._idle
        if awake >= self._slots:
            return False
        busy = (time.process_time() - cpu) / max(time.monotonic() - wall, 1e-6)
        if busy < BUSY_SHARE:
            self._wake(max(awake, 1))
        elif self._taken_at == taken_at:
            self._wake(1)
        else:
            return False
        return True
