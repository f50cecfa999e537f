"""The inside of a process that runs handlers.

The fork server imports this module before it forks, so nothing here may start a thread or use gRPC.
"""

from __future__ import annotations

import enum
import os
import queue
import signal
import threading
from multiprocessing.connection import Connection
from typing import NamedTuple

from meshq.v1.worker_service_pb2 import Assignment, LeaseOutput, LeaseProgress, TaskResult
from meshq.worker import outcomes
from meshq.worker.jobs import Job, Stop, call
from meshq.worker.pulse import Pulse
from meshq.worker.registry import Handler


class Call(NamedTuple):
    """One job for a process: an encoded assignment, when it came, and the handler that runs it."""

    type: str
    handler: bytes
    assignment: bytes
    received: float
    token: bytes


class Cancel(NamedTuple):
    """The job of a lease is to stop."""

    token: bytes
    reason: str


class Say(enum.Enum):
    """What a process tells: its words with an encoded message, and how the job ended."""

    PROGRESS = "progress"
    OUTPUT = "output"
    RESULT = "result"
    STOPPED = "stopped"


class _Child:
    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()
        self._calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._handlers: dict[str, Handler] = {}
        self._job: Job | None = None
        self._cancel: Cancel | None = None
        self._pulse = Pulse(self.progress)

    def progress(self, progress: LeaseProgress) -> None:
        self._say(Say.PROGRESS, progress.SerializeToString())

    def output(self, output: LeaseOutput) -> None:
        self._say(Say.OUTPUT, output.SerializeToString())

    def keep_alive(self, job: Job) -> None:
        self._pulse.add(job)

    def listen(self) -> None:
        """Take calls and cancellations; ends the process when the worker is gone, whatever runs."""
        while True:
            try:
                message = self._pipe.recv()
            except (EOFError, OSError):
                os._exit(0)
            if isinstance(message, Call):
                self._calls.put(message)
            else:
                self._cancel = message
                self._pass_on_cancel()

    def run(self) -> None:
        while True:
            result = self._answer(self._calls.get())
            self._job = None
            if result is None or result.HasField("cancelled"):
                self._say(Say.STOPPED, result.cancelled.message.encode() if result else b"")
            else:
                self._say(Say.RESULT, result.SerializeToString())

    def _answer(self, message: Call) -> TaskResult | None:
        try:
            handler = self._handler(message)
        except Exception as error:  # noqa: BLE001 - a module that cannot be imported raises anything
            return outcomes.raised(message.token, error)
        job = Job(Assignment.FromString(message.assignment), handler, message.received)
        job.claim()
        self._job = job
        self._pass_on_cancel()
        return call(job, self)

    def _handler(self, message: Call) -> Handler:
        handler = self._handlers.get(message.type)
        if handler is None:
            handler = self._handlers[message.type] = Handler.referred(message.type, message.handler)
        return handler

    def _pass_on_cancel(self) -> None:
        # Called when either came, so that their order does not matter.
        job, cancel = self._job, self._cancel
        if job is not None and cancel is not None and job.token == cancel.token:
            job.ask_to_stop(Stop.CANCELLED, cancel.reason)

    def _say(self, what: Say, body: bytes) -> None:
        with self._lock:
            self._pipe.send((what, body))


def serve(pipe: Connection) -> None:
    """Run what comes over the pipe, one job at a time, until its other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = _Child(pipe)
    threading.Thread(target=child.listen, name="meshq-listener", daemon=True).start()
    child.run()
