"""The worker: brings the session, the handlers and what stops them together."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import logging
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import FrameType
from typing import Any, Final, ParamSpec, TypeVar

from meshq.client.channel import resolve_target
from meshq.contract.limits import DEFAULT_QUEUE
from meshq.v1 import worker_service_pb2 as pb
from meshq.worker import outcomes
from meshq.worker.credit import Credit
from meshq.worker.errors import UNKNOWN_TASK_TYPE
from meshq.worker.jobs import Board, Job, Stop
from meshq.worker.link import Link, Listener
from meshq.worker.loop import LoopRunner
from meshq.worker.outbox import Outbox
from meshq.worker.pipe import Pipe
from meshq.worker.processes import ProcessRunner
from meshq.worker.registry import Handler, Place, TaskRegistry
from meshq.worker.session.settings import SessionSettings
from meshq.worker.settings import DEFAULT_SLOTS, WorkerSettings
from meshq.worker.threads import ThreadRunner

P = ParamSpec("P")
R = TypeVar("R")

log = logging.getLogger("meshq.worker")

STOP_SECONDS: Final = 2.0
"""What handlers that are asked to stop are given when the drain limit is over."""
FAREWELL_SECONDS: Final = 12.0
SIGNAL_SECONDS: Final = 0.2
"""How long a signal may take to be noticed. Without a limit, one that comes just as the wait begins would
be noticed after it."""


class Refused(Exception):
    """The server refused the worker; connecting again would not help."""


class Worker:
    """Runs tasks.

    ```python
    worker = Worker(queues=["reports"])

    @worker.task("greet")
    async def greet(name: str) -> str:
        return f"Hello {name}"

    worker.run()
    ```

    Coroutine functions run in an event loop, plain functions in threads, and functions with
    `processes=True` in processes. The session is kept by yet another process, so that no handler, however
    busy, costs the worker its leases.

    Args:
        target: As in `meshq.client.Client`.
        queues: The queues to serve; as a mapping with a weight for each, 1 to 1,000, by which the worker's
            room is divided while more than one has tasks. Without weights the oldest task comes first.
        slots: Tasks that run at a time, in the loop and in threads each. By default 100, or the number of
            processes when all handlers use them.
        worker_id: The id, unique among running workers; made up if None.
        tasks: Registries of handlers to begin with.
        processes: How many processes run the handlers that want one; by default one per core.
        prefetch: Tasks to hold beyond the slots. By default as many as end within a tenth of a second.
        labels: For people.
        build_id: The build that runs, for people.
        drain_timeout: Seconds that running tasks get to end when the worker stops.

    Raises:
        ValueError: A setting breaks its rule.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        queues: Sequence[str] | Mapping[str, int] = (DEFAULT_QUEUE,),
        slots: int | None = None,
        worker_id: str | None = None,
        tasks: Iterable[TaskRegistry] = (),
        processes: int | None = None,
        prefetch: int | None = None,
        labels: Mapping[str, str] | None = None,
        build_id: str = "",
        drain_timeout: float = 30.0,
    ) -> None:
        self._slots_given = slots is not None
        self.settings = WorkerSettings(
            target=resolve_target(target),
            queues=tuple(queues),
            queue_weights=dict(queues) if isinstance(queues, Mapping) else {},
            worker_id=worker_id or f"worker-{secrets.token_hex(4)}",
            slots=DEFAULT_SLOTS if slots is None else slots,
            processes=processes if processes is not None else os.cpu_count() or 1,
            prefetch=prefetch,
            labels=labels or {},
            build_id=build_id,
            drain_timeout=drain_timeout,
        )
        self.registry = TaskRegistry()
        for registry in tasks:
            self.registry.include(registry)
        self._work: _Work | None = None
        self._stop_requests = 0

    def task(
        self,
        type: str | None = None,  # noqa: A002 - the field's name
        *,
        processes: bool = False,
        no_retry: Sequence[type[BaseException]] = (),
        auto_heartbeat: bool = False,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Register a handler; see `TaskRegistry.task`."""
        return self.registry.task(type, processes=processes, no_retry=no_retry, auto_heartbeat=auto_heartbeat)

    def include(self, registry: TaskRegistry) -> None:
        """Take over the handlers of a registry."""
        self.registry.include(registry)

    def run(self) -> None:
        """Work until `stop`, SIGTERM or SIGINT, or until the server asks the worker to go.

        A signal drains the worker: it takes nothing new, gives back what it has not begun, lets the rest
        end within the drain timeout, and says Goodbye. A second signal ends the waiting.

        Raises:
            Refused: The server refused the worker.
            ValueError: There are no handlers.
        """
        self._stop_requests = 0
        restore = self._catch_signals()
        try:
            work = self._begin()
            while not work.ended.wait(SIGNAL_SECONDS):
                if self._stop_requests:
                    log.info("stopping")
                    work.ask_to_end()
            self._finish(work)
        finally:
            restore()

    def start(self) -> None:
        """Begin to work, and return. `stop` and `wait` belong to it."""
        self._stop_requests = 0
        self._begin()

    def stop(self) -> None:
        """Ask the worker to drain and end; asked again, it waits no longer. Returns at once."""
        self._stop_requests += 1
        if self._work is not None:
            self._work.ask_to_end()

    def wait(self) -> None:
        """After `start`: wait until the worker was stopped, and end it.

        Raises:
            Refused: The server refused the worker.
        """
        assert self._work is not None
        self._work.ended.wait()
        self._finish(self._work)

    def _begin(self) -> _Work:
        if not len(self.registry):
            raise ValueError("a worker needs at least one handler")
        settings = self.settings
        if not self._slots_given and all(handler.place is Place.PROCESS for handler in self.registry):
            settings = dataclasses.replace(settings, slots=settings.processes)
        self._work = _Work(settings, self.registry, lambda: self._stop_requests > 1)
        self._work.start()
        return self._work

    def _finish(self, work: _Work) -> None:
        work.finish()
        if work.refused:
            raise Refused(work.refused)

    def _catch_signals(self) -> Callable[[], None]:
        if threading.current_thread() is not threading.main_thread():
            return lambda: None

        def caught(_number: int, _frame: FrameType | None) -> None:
            # The interrupted code may hold any lock, so nothing that takes one may be called here.
            self._stop_requests += 1

        before = {number: signal.signal(number, caught) for number in (signal.SIGTERM, signal.SIGINT)}

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        return restore


class _Work:
    """One run of a worker; `hastened` says whether to wait no longer at the end."""

    def __init__(
        self, settings: WorkerSettings, registry: TaskRegistry, hastened: Callable[[], bool]
    ) -> None:
        self.ended = threading.Event()
        self.refused = ""
        self._settings = settings
        self._registry = registry
        self._instance_key = secrets.token_hex(16)
        self._hastened = hastened
        self._finished = False
        self._credit = Credit(settings.slots, settings.prefetch)
        self._outbox = Outbox(self._credit)
        self._board = Board(self._outbox.end)
        self._threads = ThreadRunner(settings.slots, self._board, self._outbox)
        self._processes = self._make_processes()
        self._loop = self._make_loop()
        self._link = Link(Listener(self._on_frame, self._on_notice, self._on_pipe, self._standing))
        self._take: dict[str | None, Callable[[pb.ConnectResponse], None]] = {
            "assign": self._on_assign,
            "cancel": self._on_cancel,
            "lease_lost": self._on_lost,
            "control": self._on_control,
        }

    def start(self) -> None:
        self._outbox.start()
        self._link.start()

    def ask_to_end(self) -> None:
        self._credit.paused = True
        self.ended.set()

    def finish(self) -> None:
        """Drain, say Goodbye, end everything."""
        if self._finished:
            return
        self._finished = True
        self._credit.paused = True
        self._drain()
        self._outbox.flush()
        told = self._link.close("stopping", FAREWELL_SECONDS)
        self._outbox.stop()
        self._threads.stop()
        if self._loop is not None:
            self._loop.stop(STOP_SECONDS)
        if self._processes is not None:
            self._processes.stop()
        log.info("stopped", extra={"goodbye": told})

    # Coming to the end

    def _drain(self) -> None:
        self._release_waiting()
        end = time.monotonic() + self._settings.drain_timeout
        while time.monotonic() < end and not self._hastened() and not self.refused:
            if self._board.wait_empty(0.1):
                return
            self._release_waiting()
        left = self._board.jobs
        if left:
            log.warning("tasks are cut off", extra={"tasks": len(left)})
        for job in left:
            self._stop(job, Stop.SHUTDOWN, "the worker stops", 0.0)
        self._board.wait_empty(STOP_SECONDS)

    def _release_waiting(self) -> None:
        for job in self._board.jobs:
            if not job.claimed:
                job.ask_to_stop(Stop.SHUTDOWN)
                if not job.claimed:
                    self._board.finish(job, outcomes.release(job.token, "the worker stops"))

    # What the session says

    def _standing(self) -> SessionSettings:
        settings = self._settings
        return SessionSettings(
            target=settings.target,
            worker_id=settings.worker_id,
            instance_key=self._instance_key,
            task_types=self._registry.types,
            queues=settings.queues,
            queue_weights=settings.queue_weights,
            slots=settings.slots,
            labels=settings.labels,
            build_id=settings.build_id,
            user_agent=f"meshq-python/{importlib.metadata.version('meshq')}",
            held=tuple(job.token.hex() for job in self._board.jobs),
            assigned=self._credit.assigned,
        )

    def _on_pipe(self, pipe: Pipe) -> None:
        self._outbox.pipe = pipe
        self._credit.granted = self._credit.assigned
        self._outbox.signal()

    def _on_notice(self, notice: Mapping[str, Any]) -> None:
        fields = dict(notice)
        event = fields.pop("event")
        if event == "refused":
            self.refused = fields["error"]
            log.error("refused by the server", extra=fields)
            self.ask_to_end()
            return
        log.log(logging.INFO if event == "connected" else logging.WARNING, event, extra=fields)

    def _on_frame(self, frame: pb.ConnectResponse) -> None:
        self._take[frame.WhichOneof("frame")](frame)

    def _on_assign(self, frame: pb.ConnectResponse) -> None:
        assignments = frame.assign.assignments
        self._credit.assigned += len(assignments)
        received = outcomes.now()
        by_place: dict[Place, list[Job]] = {}
        for assignment in assignments:
            handler = self._registry.get(assignment.task.type)
            if handler is None:
                self._outbox.end(_unknown(assignment))
                continue
            if self.ended.is_set():
                self._outbox.end(outcomes.release(assignment.lease_token, "the worker stops"))
                continue
            job = Job(assignment, handler, received)
            if not self._board.add(job):
                self._outbox.end(None)
                continue
            by_place.setdefault(handler.place, []).append(job)
            if assignment.task.HasField("heartbeat_timeout"):
                self._outbox.keep_alive(job)
        for place, jobs in by_place.items():
            self._runner(place).submit(jobs)

    def _on_cancel(self, frame: pb.ConnectResponse) -> None:
        for lease in frame.cancel.leases:
            job = self._board.get(lease.lease_token)
            if job is not None:
                self._stop(job, Stop.CANCELLED, lease.reason, lease.grace.ToNanoseconds() / 1e9)

    def _on_lost(self, frame: pb.ConnectResponse) -> None:
        log.warning("leases were lost", extra={"leases": len(frame.lease_lost.lease_tokens)})
        for token in frame.lease_lost.lease_tokens:
            job = self._board.get(token)
            if job is not None:
                self._stop(job, Stop.LEASE_LOST, "the lease was lost", 0.0)

    def _on_control(self, frame: pb.ConnectResponse) -> None:
        action, reason = frame.control.action, frame.control.reason
        log.info("asked by the server", extra={"action": pb.ControlAction.Name(action), "reason": reason})
        if action == pb.CONTROL_ACTION_DRAIN:
            self.ask_to_end()
        elif action in {pb.CONTROL_ACTION_PAUSE, pb.CONTROL_ACTION_RESUME}:
            self._credit.paused = action == pb.CONTROL_ACTION_PAUSE or self.ended.is_set()
            self._outbox.signal()

    # Running and stopping jobs

    def _stop(self, job: Job, why: Stop, reason: str, grace: float) -> None:
        job.ask_to_stop(why, reason, grace)
        if not job.claimed:
            self._board.finish(job, job.stopped())
        elif job.handler.place is Place.LOOP and self._loop is not None:
            self._loop.cancel(job)
        elif job.handler.place is Place.PROCESS and self._processes is not None:
            self._processes.cancel(job)

    def _runner(self, place: Place) -> ThreadRunner | LoopRunner | ProcessRunner:
        if place is Place.LOOP and self._loop is not None:
            return self._loop
        if place is Place.PROCESS and self._processes is not None:
            return self._processes
        return self._threads

    def _handlers(self, place: Place) -> list[Handler]:
        return [handler for handler in self._registry if handler.place is place]

    def _make_loop(self) -> LoopRunner | None:
        if not self._handlers(Place.LOOP):
            return None
        return LoopRunner(self._settings.slots, self._board, self._outbox)

    def _make_processes(self) -> ProcessRunner | None:
        handlers = self._handlers(Place.PROCESS)
        if not handlers:
            return None
        return ProcessRunner(self._settings.processes, handlers, self._board, self._outbox)


def _unknown(assignment: pb.Assignment) -> pb.TaskResult:
    kind = assignment.task.type
    message = f"task.type: {kind!r} has no handler at this worker"
    return outcomes.failure(assignment.lease_token, UNKNOWN_TASK_TYPE, message)
