"""Plain functions in processes, which can use a core each, and can be killed.

Each process has a thread here that hands it one job at a time and waits for the answer. The processes come
from a fork server, which is a fresh interpreter, because what this process has started would not survive a
fork. A process that dies takes its one task along, which fails, and is replaced.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Final

from meshq.v1.worker_service_pb2 import LeaseOutput, LeaseProgress, TaskResult
from meshq.worker import outcomes
from meshq.worker.child import Call, Cancel, Say, serve
from meshq.worker.context import News
from meshq.worker.errors import PROCESS_DIED
from meshq.worker.jobs import Board, Job
from meshq.worker.registry import Handler

GRACE_SHARE: Final = 0.2
MAX_GRACE_RESERVE: Final = 1.0


class ProcessRunner:
    """Runs jobs in a fixed number of processes, which start at once.

    Args:
        count: The number of processes.
        handlers: The handlers that will be asked for.
        board: Where answers go.
        news: Where progress and output go.

    Raises:
        TypeError: A handler cannot be found from another process.
    """

    def __init__(self, count: int, handlers: Sequence[Handler], board: Board, news: News) -> None:
        self._references = {handler.type: handler.reference() for handler in handlers}
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["meshq.worker.child"])
        self._seats = [_Seat(number, context, self, board, news) for number in range(count)]

    def submit(self, jobs: Sequence[Job]) -> None:
        """Take jobs; returns at once."""
        for job in jobs:
            self._jobs.put(job)

    def cancel(self, job: Job) -> None:
        """Tell the process of a running job, and kill it when its grace is over."""
        for seat in self._seats:
            seat.cancel(job)

    def stop(self) -> None:
        """End all processes; jobs that run are cut off."""
        for _ in self._seats:
            self._jobs.put(None)
        for seat in self._seats:
            seat.stop()

    def next_job(self) -> Job | None:
        """Wait for a job; None when there will be none."""
        return self._jobs.get()

    def call_for(self, job: Job) -> Call:
        """What the process is told."""
        kind = job.handler.type
        assignment = job.assignment.SerializeToString()
        return Call(kind, self._references[kind], assignment, job.received, job.token)


class _Seat:
    """One process and the thread that serves it."""

    def __init__(self, number: int, context: Any, runner: ProcessRunner, board: Board, news: News) -> None:
        self._context = context
        self._runner = runner
        self._board = board
        self._news = news
        self._job: Job | None = None
        self._lock = threading.Lock()
        self._stopped = False
        self._killed = False
        self._process: BaseProcess
        self._pipe: Connection
        self._name = f"meshq-process-{number}"
        self._open()
        self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
        self._thread.start()

    def cancel(self, job: Job) -> None:
        with self._lock:
            if self._job is job:
                self._tell(job)

    def _tell(self, job: Job) -> None:
        with contextlib.suppress(OSError):
            self._pipe.send(Cancel(job.token, job.stop_reason))
        timer = threading.Timer(_patience(job.grace), self._kill, (job, self._process))
        timer.daemon = True
        timer.start()

    def stop(self) -> None:
        self._stopped = True
        self._process.kill()
        self._thread.join()
        self._process.join()
        self._pipe.close()

    def _kill(self, job: Job, process: BaseProcess) -> None:
        with self._lock:
            if self._job is job:
                self._killed = True
                process.kill()

    def _open(self) -> None:
        self._killed = False
        self._pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(target=serve, args=(theirs,), name=self._name, daemon=True)
        self._process.start()
        theirs.close()

    def _serve(self) -> None:
        while (job := self._runner.next_job()) is not None and not self._stopped:
            if not job.claim():
                self._board.finish(job, job.stopped())
                continue
            self._renew()  # It may have died without a job.
            result = self._run(job)
            self._renew()
            self._board.finish(job, result)

    def _renew(self) -> None:
        """Replace a process that is dead, or will be in a moment: a kill and an answer may have crossed."""
        if self._killed:
            self._process.join()
        if not self._stopped and not self._process.is_alive():
            self._pipe.close()
            self._open()

    def _run(self, job: Job) -> TaskResult | None:
        try:
            with self._lock:
                self._job = job
                self._pipe.send(self._runner.call_for(job))
                if job.stop is not None:  # It came when no process had the job yet.
                    self._tell(job)
            return self._listen(job)
        except (EOFError, OSError):
            self._process.join()
            return self._last_word(job)
        finally:
            with self._lock:
                self._job = None

    def _listen(self, job: Job) -> TaskResult | None:
        while True:
            kind, body = self._pipe.recv()
            if kind is Say.PROGRESS:
                self._news.progress(LeaseProgress.FromString(body))
            elif kind is Say.OUTPUT:
                self._news.output(LeaseOutput.FromString(body))
            elif kind is Say.STOPPED:
                return job.stopped(body.decode())
            else:
                return outcomes.stamp(TaskResult.FromString(body), job.started)

    def _last_word(self, job: Job) -> TaskResult | None:
        if job.stop is not None:
            return job.stopped()
        message = f"the process that ran the task ended with exit code {self._process.exitcode}"
        return outcomes.stamp(outcomes.failure(job.token, PROCESS_DIED, message), job.started)


def _patience(grace: float) -> float:
    # The server hears of the end before the grace is over there.
    return grace - min(grace * GRACE_SHARE, MAX_GRACE_RESERVE)
