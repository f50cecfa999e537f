"""Keeps processes running: starts each when what it needs is ready, watches it, restarts it when it dies.

One task keeps one process. Its states:

    WAITING -> STARTING -> READY -> RESTARTING -> STARTING ...
                  any of them -> STOPPING -> STOPPED

A process that dies before it was ever ready is tried a few times; then the start has failed. After that it is
restarted for ever, ever more slowly while it keeps dying young.
"""

import asyncio
import errno
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from meshq.local.child import Child, Guard
from meshq.local.datadir import disk_full, log_of
from meshq.local.errors import LocalError, StartFailed
from meshq.local.forks import ForkRefused, Forks
from meshq.local.plan import ProcessPlan, child_environment, common_environment, in_stop_waves
from meshq.local.readiness import probe_of, wait_ready
from meshq.local.servers import Preparation, bound_to_parent

FORK_SERVER = "forkserver"
_TRIES = 3
_FIRST_BACKOFF, _LAST_BACKOFF = 0.1, 5.0
_YOUNG = 10.0
_PATIENCE = 15.0
_LAST_LINES = 3


class State(StrEnum):
    """Where a process is in its life."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    STOPPED = "stopped"


class Supervised:
    """One process that is kept running."""

    def __init__(
        self,
        plan: ProcessPlan,
        data: Path,
        guard: Guard,
        forks: Forks,
        *,
        restart: bool,
        changed: Callable[["Supervised"], None],
    ) -> None:
        self.plan = plan
        self.state = State.WAITING
        self.since = time.time()
        self.restarts = 0
        self.failure: LocalError | None = None
        self.ready = asyncio.Event()
        self.log = log_of(data, plan.name)
        self._data = data
        self._guard = guard
        self._forks = forks
        self._restart = restart
        self._changed = changed
        self._child: Child | None = None
        self._wanted = False
        self._was_ready = False
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._child.pid if self._child is not None and self._child.alive else None

    def start(self, needed: Sequence["Supervised"] = ()) -> None:
        """Begin to keep it, once what it needs is ready."""
        if self._keeper is None or self._keeper.done():
            self._wanted = True
            self._keeper = asyncio.create_task(self._keep(needed), name=f"keep-{self.plan.name}")

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal; raise StartFailed if it does not run."""
        if self._child is None or not self._child.alive:
            raise StartFailed(f"{self.plan.name} does not run.")
        self._child.send(number)

    async def stop(self) -> None:
        """Stop keeping it, and end it."""
        if self._keeper is None:
            return
        self._wanted = False
        if self._child is not None and self._child.alive:
            self._enter(State.STOPPING)
            server = self.plan.server
            await self._child.stop(server.stop_signal if server else signal.SIGTERM, _PATIENCE)
        self._keeper.cancel()
        await asyncio.gather(self._keeper, return_exceptions=True)
        self._enter(State.STOPPED)

    def kill(self) -> None:
        """Kill it with everything it started, and do not start it again."""
        self._wanted = False
        if self._child is not None and self._child.alive:
            self._child.kill_group()

    async def ended(self) -> None:
        """Wait until the process that runs now has ended."""
        if self._child is not None:
            await self._child.wait()

    async def _keep(self, needed: Sequence["Supervised"]) -> None:
        for other in needed:
            await other.ready.wait()
        young_deaths = 0
        while self._wanted:
            begin = time.monotonic()
            ending = await self._live_once()
            young_deaths = young_deaths + 1 if time.monotonic() - begin < _YOUNG else 1
            if not self._was_ready and young_deaths >= _TRIES and self.failure is None:
                self.failure = StartFailed(
                    f"{self.plan.name} {ending} during its start: {last_words(self.log)}"
                )
            if not self._wanted or not self._goes_on():
                break
            self.restarts += 1
            self._enter(State.RESTARTING)
            await asyncio.sleep(min(_FIRST_BACKOFF * 2 ** (young_deaths - 1), _LAST_BACKOFF))
        self._enter(State.STOPPED)

    def _goes_on(self) -> bool:
        return self._restart if self._was_ready else self.failure is None

    async def _live_once(self) -> str:
        """Start the process and return how it ended; what was wrong with the start is in `failure`."""
        self.failure = None
        try:
            return _ending(await self._live())
        except LocalError as error:
            self.failure = error
        except OSError as error:
            full = error.errno == errno.ENOSPC
            self.failure = disk_full(self._data) if full else StartFailed(f"{self.plan.name}: {error}.")
        return str(self.failure)

    async def _live(self) -> int:
        """Start the process and return the code with which it ended."""
        self._enter(State.STARTING)
        server = self.plan.server
        for preparation in server.preparations() if server else ():
            if (code := await self._prepare(preparation)) != 0 or not self._wanted:
                return code
        forkable = bool(self.plan.module) and await self._forks.usable()
        if not self._wanted:
            return 0
        probe = probe_of(self.plan, self.log)
        return await self._watch((forkable and self._fork()) or self._execute(), probe)

    async def _watch(self, child: Child, probe: Callable[[], bool]) -> int:
        """Note when the process is ready, and return the code with which it ended."""
        readiness = asyncio.create_task(wait_ready(probe))
        end = asyncio.create_task(child.wait())
        try:
            await asyncio.wait({readiness, end}, return_when=asyncio.FIRST_COMPLETED)
            if child.alive and self._wanted:
                self._was_ready = True
                self._enter(State.READY)
            return await end
        finally:
            self.ready.clear()
            readiness.cancel()
            end.cancel()
            await asyncio.gather(readiness, end, return_exceptions=True)

    async def _prepare(self, preparation: Preparation) -> int:
        rights = self.plan.server.rights if self.plan.server else None
        command = bound_to_parent(preparation.command, rights=rights)
        return await self._spawn(command, preparation.stdin).wait()

    def _fork(self) -> Child | None:
        """Have the process forked; None if the fork server has just died."""
        module, *words = self.plan.module
        environment = child_environment(self.plan, os.environ)
        try:
            with self.log.open("ab") as log:
                child = self._forks.fork(module, words, environment=environment, log=log)
        except ForkRefused:
            return None
        return self._began(child)

    def _execute(self) -> Child:
        server = self.plan.server
        return self._spawn(server.launched() if server else bound_to_parent(self.plan.command))

    def _spawn(self, command: Sequence[str], stdin: bytes = b"") -> Child:
        environment = child_environment(self.plan, os.environ)
        with self.log.open("ab") as log:
            child = Child.spawn(command, environment=environment, stdin=stdin, log=log, guard=self._guard)
        return self._began(child)

    def _began(self, child: Child) -> Child:
        self._child = child
        self._changed(self)
        return child

    def _enter(self, state: State) -> None:
        if state is self.state:
            return
        self.state, self.since = state, time.time()
        if state is State.READY:
            self.ready.set()
        else:
            self.ready.clear()
        self._changed(self)


class Supervisor:
    """All processes of a system."""

    def __init__(
        self,
        plans: Sequence[ProcessPlan],
        data: Path,
        guard: Guard,
        *,
        restart: bool = True,
        changed: Callable[[Supervised], None] = lambda _: None,
    ) -> None:
        """`changed` is called whenever a process entered another state."""
        self._data = data
        self._plans = plans
        self._news = asyncio.Event()
        self._changed = changed
        modules = [plan.module[0] for plan in plans if plan.module]
        log = log_of(data, FORK_SERVER)
        self._forks = Forks(modules, common_environment(os.environ), log, guard)
        self.processes: Mapping[str, Supervised] = {
            plan.name: Supervised(plan, data, guard, self._forks, restart=restart, changed=self._hear)
            for plan in plans
        }

    def start(self) -> None:
        """Begin to keep all processes."""
        self._forks.start()
        for process in self.processes.values():
            process.start([self.processes[name] for name in process.plan.after])

    async def wait_ready(self, seconds: float) -> None:
        """Return when all are ready; raise the failure of one, or StartFailed when the time is over."""
        try:
            async with asyncio.timeout(seconds):
                while not self.ready:
                    self._news.clear()
                    self._raise_failure()
                    await self._news.wait()
        except TimeoutError:
            late = next(process for process in self.processes.values() if not process.ready.is_set())
            raise StartFailed(
                f"{late.plan.name} was not ready within {seconds:.0f} seconds: {last_words(late.log)}"
            ) from None

    @property
    def ready(self) -> bool:
        """Whether all are ready now."""
        return all(process.ready.is_set() for process in self.processes.values())

    async def stop(self) -> None:
        """End all, wave by wave."""
        for wave in in_stop_waves(self._plans):
            await asyncio.gather(*(self.processes[plan.name].stop() for plan in wave))
        await self._forks.stop()

    def kill(self) -> None:
        """End all at once, without asking."""
        for process in self.processes.values():
            process.kill()
        self._forks.kill()

    def _hear(self, process: Supervised) -> None:
        self._news.set()
        self._changed(process)

    def _raise_failure(self) -> None:
        for process in self.processes.values():
            if process.failure is not None:
                raise process.failure


def last_words(log: Path) -> str:
    """The end of a log, on one line, and where the rest is."""
    try:
        lines = log.read_text(errors="replace").strip().splitlines()[-_LAST_LINES:]
    except OSError:
        lines = []
    said = " | ".join(dict.fromkeys(line.strip() for line in lines))  # each only once
    return f"{said or 'it said nothing'} (see {log})"


def _ending(code: int) -> str:
    return f"ended with code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
