"""A whole system as one object: `async with System(ephemeral=True) as system: ... system.edge ...`."""

import asyncio
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from meshq.local import datadir, running
from meshq.local.child import Guard
from meshq.local.errors import LocalError, PortInUse, StartFailed
from meshq.local.plan import Kind, ProcessPlan, Size, SystemPlan, make_plan, port_names
from meshq.local.ports import free_port, free_ports, is_free
from meshq.local.settings import EDGE_PORT, LocalSettings, default_data
from meshq.local.state import ProcessState, SystemState
from meshq.local.supervisor import Supervised, Supervisor

READY_WITHIN = 90.0
_LEFTOVERS = 2.0

Planner = Callable[[Path, int, Mapping[str, int], LocalSettings, Size], SystemPlan]


@dataclass(frozen=True)
class RunningProcess:
    """A process of the system as it is now; pid is None while it does not run."""

    name: str
    kind: Kind
    pid: int | None
    address: str
    state: str
    restarts: int


class System:
    """etcd, shards, PostgreSQL and all components, started together, watched, and stopped together."""

    def __init__(
        self,
        data: Path | None = None,
        *,
        port: int = EDGE_PORT,
        ephemeral: bool = False,
        restart: bool = True,
        size: Size | None = None,
        settings: LocalSettings | None = None,
        changed: Callable[[ProcessState], None] = lambda _: None,
        planner: Planner = make_plan,
    ) -> None:
        """Nothing happens before the system is entered.

        Args:
            data: The data directory; the user's own by default.
            port: The port of the edge on 127.0.0.1; 0 takes a free one.
            ephemeral: Keep the data in a temporary folder, which is removed at the end.
            restart: Start again what dies.
            size: How many of each component.
            settings: Servers that run elsewhere; read from the environment by default.
            changed: Called in the loop whenever a process entered another state.
            planner: Which processes to run.
        """
        self.data = data or default_data()
        self.plan: SystemPlan = SystemPlan((), "", {}, {})
        self._port = port
        self._ephemeral = ephemeral
        self._restart = restart
        self._size = size or Size()
        self._settings = settings
        self._observe = changed
        self._planner = planner
        self._ports: Mapping[str, int] = {}
        self._ready = False
        self._lock: datadir.Lock | None = None
        self._guard: Guard | None = None
        self._supervisor: Supervisor | None = None
        self._stop: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Start everything and wait until it is ready; whatever goes wrong, nothing is left behind."""
        try:
            self._open()
            assert self._supervisor is not None
            for process in self._all().values():
                self._observe(_state_of(process))  # in the order of the plan, before they overtake each other
            self._supervisor.start()
            await self._wait_ready()
        except BaseException:
            await self.stop()
            raise
        self._ready = True
        self._remember()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything."""
        await self.stop()

    @property
    def edge(self) -> str:
        """host:port for clients."""
        return self.plan.edge

    @property
    def shards(self) -> Mapping[str, str]:
        """The shards started here: name -> host:port."""
        return self.plan.shards

    @property
    def environment(self) -> Mapping[str, str]:
        """Environment for further clients and workers, gRPC's xDS bootstrap included."""
        return self.plan.clients

    @property
    def processes(self) -> Mapping[str, RunningProcess]:
        """Every process by name."""
        return {
            name: RunningProcess(name, one.plan.kind, one.pid, one.plan.address, one.state, one.restarts)
            for name, one in self._all().items()
        }

    def kill(self, name: str) -> None:
        """End a process as a crash would; it is started again unless `restart` is off."""
        self.signal(name, signal.SIGKILL)

    def terminate(self, name: str) -> None:
        """Ask a process to end; it is started again unless `restart` is off."""
        self.signal(name, signal.SIGTERM)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a process a signal; raise StartFailed if it does not run."""
        self._all()[name].send(number)

    async def stop_process(self, name: str) -> None:
        """End a process and leave it stopped."""
        await self._all()[name].stop()

    async def start_process(self, name: str) -> None:
        """Start a process that was stopped, and wait until it is ready."""
        self._all()[name].start()
        await self.wait_ready(name)

    async def restart(self, name: str) -> None:
        """End a process, start it again, and wait until it is ready."""
        await self.stop_process(name)
        await self.start_process(name)

    async def ended(self, name: str) -> None:
        """Wait until the process that runs now under this name has ended."""
        await self._all()[name].ended()

    async def wait_ready(self, name: str | None = None, seconds: float = READY_WITHIN) -> None:
        """Wait until a process, or everything, is ready."""
        assert self._supervisor is not None
        if name is None:
            await self._supervisor.wait_ready(seconds)
            return
        try:
            await asyncio.wait_for(self._all()[name].ready.wait(), seconds)
        except TimeoutError:
            raise StartFailed(f"{name} was not ready within {seconds:.0f} seconds.") from None

    def logs(self, name: str) -> str:
        """What a process has said since the system was started."""
        try:
            return self._all()[name].log.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def kill_all(self) -> None:
        """End everything at once, without asking; `stop` still has to be awaited."""
        if self._supervisor is not None:
            self._supervisor.kill()

    async def stop(self) -> None:
        """Stop everything; returns when no process is left.

        Who calls again waits for the same end, and being cancelled does not stop the stopping.
        """
        if self._stop is None:
            self._stop = asyncio.create_task(self._close(), name="stop")
        await asyncio.shield(self._stop)

    @property
    def stopping(self) -> bool:
        """Whether the end has begun."""
        return self._stop is not None

    async def _close(self) -> None:
        self._ready = False
        if self._supervisor is not None:
            await self._supervisor.stop()
        if self._guard is not None:
            self._guard.close()
            self._guard = None
        if self._lock is not None:
            if self._ephemeral:
                shutil.rmtree(self.data, ignore_errors=True)
            else:
                self._remember()
            self._lock.release()
            self._lock = None

    def _open(self) -> None:
        """Everything up to the first process."""
        self.data = datadir.create_ephemeral() if self._ephemeral else datadir.create(self.data.absolute())
        lock = datadir.Lock(self.data)
        lock.acquire()
        self._lock = lock
        before = SystemState.read(self.data)
        running.wait_for_leftovers((process.pid for process in before.processes if process.pid), _LEFTOVERS)
        settings = self._settings or LocalSettings.load()
        edge = self._edge_port()
        with datadir.translated(self.data):
            datadir.rotate_logs(self.data)
            datadir.clear_temporary(self.data)
            self._ports = self._choose_ports(port_names(settings, self._size), edge)
            self.plan = self._planner(self.data, edge, self._ports, settings, self._size)
            self._guard = Guard.start()
            if self._ephemeral:
                self._guard.owns(self.data)
            self._supervisor = self._supervise(self.plan.processes, self._guard)
            self._state().write(self.data)

    def _supervise(self, processes: tuple[ProcessPlan, ...], guard: Guard) -> Supervisor:
        return Supervisor(processes, self.data, guard, restart=self._restart, changed=self._hear)

    def _edge_port(self) -> int:
        if self._port == 0:
            return free_port()
        if not is_free(self._port):
            raise PortInUse(
                f"Port {self._port} of 127.0.0.1 is in use: choose another with --port, or stop what uses it."
            )
        return self._port

    def _choose_ports(self, names: list[str], edge: int) -> dict[str, int]:
        """The ports of the last time where they are free, others where not."""
        remembered = SystemState.read(self.data).ports
        kept = {
            name: remembered[name]
            for name in names
            if name in remembered and remembered[name] != edge and is_free(remembered[name])
        }
        missing = [name for name in names if name not in kept]
        taken = {edge, *kept.values()}
        fresh = (port for port in free_ports(len(missing) + len(taken)) if port not in taken)
        return {**kept, **dict(zip(missing, fresh, strict=False))}

    async def _wait_ready(self) -> None:
        assert self._supervisor is not None
        try:
            await self._supervisor.wait_ready(READY_WITHIN)
        except LocalError:
            if datadir.was_full(self.data):
                raise datadir.disk_full(self.data) from None
            raise

    def _all(self) -> Mapping[str, Supervised]:
        return self._supervisor.processes if self._supervisor is not None else {}

    def _hear(self, process: Supervised) -> None:
        self._remember()
        self._observe(_state_of(process))

    def _state(self) -> SystemState:
        return SystemState(
            edge=self.edge,
            ready=self._ready and self._supervisor is not None and self._supervisor.ready,
            supervisor=os.getpid(),
            ports=self._ports,
            processes=tuple(_state_of(process) for process in self._all().values()),
        )

    def _remember(self) -> None:
        try:
            self._state().write(self.data)
        except OSError:  # a full disk must not end what runs; `status` is out of date then
            return


def _state_of(process: Supervised) -> ProcessState:
    return ProcessState(
        name=process.plan.name,
        kind=process.plan.kind,
        state=process.state,
        address=process.plan.address,
        pid=process.pid,
        restarts=process.restarts,
        since=process.since,
    )
