"""The whole life of a process, from its settings to its last call.

A component brings a function that builds its `App` from the `Kit`; everything else is the same for
all. The order of a stop is that of the design: deregister, health to NOT_SERVING, drain, finish the
calls under way, stop. Each step has a bound, and a second signal hastens them all.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Final

import grpc
import uvloop
from grpc_health.v1 import health

from meshq.contract.errors import MeshqError
from meshq.contract.runtime import collect_rarely
from meshq.mesh.addresses import reachable
from meshq.mesh.admin import AdminServer
from meshq.mesh.channels import MeshChannel, install_bootstrap, open_channel, target_of
from meshq.mesh.directory import Instance, InstanceDirectory
from meshq.mesh.election import Election, Office
from meshq.mesh.etcd import EtcdClient
from meshq.mesh.interceptors import CallInterceptor
from meshq.mesh.lifecycle import Background, StopSignals, backoff
from meshq.mesh.registration import Announcement, Registration
from meshq.mesh.server import CannotListen, ServedService, build_server, listen, set_serving
from meshq.mesh.settings import ProcessSettings
from meshq.mesh.telemetry import configure_logs, logger

__all__ = [
    "App",
    "Instance",
    "InstanceDirectory",
    "Kit",
    "ServedService",
    "StartupError",
    "run",
    "start_when_there",
]

_log = logger(__name__)

_STOP_SECONDS: Final = 10.0
_UNASKED_SECONDS: Final = 0.1
_LATE_CALLERS_SECONDS: Final = 3.0
_FAILED: Final = 1


class StartupError(Exception):
    """The process cannot start; the message says why in one sentence."""


@dataclass
class App:
    """What a component is made of.

    Attributes:
        services: What its server serves.
        background: What runs beside; started in order before serving, stopped in reverse.
        drain: Called after deregistering: tells sessions to go and returns when it is quiet. Called also when
            the start was interrupted: what runs in the background may have callers before all has started.
        metadata: What the registration says beyond what the kit knows.
        described: What reflection lists; the services unless given.
    """

    services: Sequence[ServedService]
    background: Sequence[Background] = ()
    drain: Callable[[], Awaitable[None]] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    described: Sequence[str] | None = None


class Kit:
    """What a component gets: channels to others, who they are, and etcd.

    Attributes:
        settings: The settings of the process.
        etcd: A client of etcd.
        facts: What the registration says beyond what does not change.
        on_facts: Called when they have changed.
    """

    def __init__(self, settings: ProcessSettings) -> None:
        self.settings = settings
        self.instance_id = settings.instance_id
        self.etcd = EtcdClient(settings.etcd_endpoints)
        self._mesh: MeshChannel | None = None
        self._direct: dict[str, MeshChannel] = {}
        self._directories: dict[str, InstanceDirectory] = {}
        self.facts: dict[str, Any] = {}
        self.on_facts: Callable[[], None] = _ignore

    def channel(self) -> grpc.aio.Channel:
        """The mesh as a whole; shared, not to be closed."""
        if self._mesh is None:
            self._mesh = open_channel(self.settings.mesh_target)
        return self._mesh

    def direct(self, address: str) -> grpc.aio.Channel:
        """Straight to one process; shared, not to be closed."""
        channel = self._direct.get(address)
        if channel is None:
            channel = self._direct[address] = open_channel(address)
        return channel

    def peers(self, component: str) -> InstanceDirectory:
        """The processes of a component; shared, and followed from the first call on."""
        directory = self._directories.get(component)
        if directory is None:
            registry = target_of(self.settings.registry_addresses)
            directory = self._directories[component] = InstanceDirectory(
                lambda: self.direct(registry), component
            )
            directory.begin()
        return directory

    def election(self, office: Office) -> Election:
        """Who leads the component; what the instance says of itself tells whether it does.

        Args:
            office: The office in the component's database.
        """
        election = Election(self.settings.component, self.instance_id, self.etcd, office)

        def changed() -> None:
            self.facts["leader"] = bool(election.term)
            self.on_facts()

        election.on_change(changed)
        return election

    async def close(self) -> None:
        """Close everything that was handed out."""
        for directory in self._directories.values():
            await directory.stop()
        for channel in (*self._direct.values(), *((self._mesh,) if self._mesh else ())):
            await channel.close()
        await self.etcd.close()


def _ignore() -> None:
    """Nobody is told before the process is registered."""


def run(settings: ProcessSettings, build: Callable[[Kit], Awaitable[App]]) -> None:
    """Be the process until a signal ends it; returns after a stop in order, else exits with 1."""
    configure_logs(settings)
    install_bootstrap(settings)
    collect_rarely()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_live(settings, build))
        except (CannotListen, StartupError) as error:
            _log.critical("cannot start", reason=str(error))
            sys.exit(_FAILED)
        except Exception as error:  # noqa: BLE001
            _log.critical("ended by an error", exc_info=error)
            sys.exit(_FAILED)


async def start_when_there(what: str, start: Callable[[], Awaitable[None]], seconds: float = 60.0) -> None:
    """Start what needs a server that may itself be starting just now.

    Args:
        what: What is waited for, for the log.
        start: Called again while it raises a `MeshqError` that is worth retrying.
        seconds: How long to try.

    Raises:
        StartupError: It cannot be had, or not in time.
    """
    deadline = time.monotonic() + seconds
    failures = 0
    while True:
        try:
            return await start()
        except MeshqError as error:
            failures += 1
            reason = str(error.__cause__ or error)
            if not error.retryable or time.monotonic() > deadline:
                raise StartupError(f"{error.message} ({reason})" if error.__cause__ else reason) from error
            _log.info("waiting for a server", what=what, reason=reason)
            await asyncio.sleep(backoff(failures, most=2.0))


async def _live(settings: ProcessSettings, build: Callable[[Kit], Awaitable[App]]) -> None:
    signals = StopSignals()
    signals.install()
    process = Process(settings, build, signals)
    starting = asyncio.create_task(process.start())
    stopped = asyncio.create_task(signals.stop.wait())
    try:
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            await stopped
    finally:
        stopped.cancel()
        starting.cancel()
        await asyncio.gather(starting, stopped, return_exceptions=True)
        await process.stop()


class Process:
    """The parts of a process, started one after the other and stopped in the order of the design."""

    def __init__(
        self, settings: ProcessSettings, build: Callable[[Kit], Awaitable[App]], signals: StopSignals
    ) -> None:
        self._settings = settings
        self._build = build
        self._signals = signals
        self._kit = Kit(settings)
        self._health = health.aio.HealthServicer()
        self._calls = CallInterceptor()
        self._serving = False
        self._admin = AdminServer(settings.admin_listen, lambda: self._serving)
        self._app: App | None = None
        self._started: list[Background] = []
        self._server: grpc.aio.Server | None = None
        self._registration: Registration | None = None

    async def start(self) -> None:
        """Start everything; whoever calls stops the process afterwards, even if this fails."""
        await self._admin.start()
        app = self._app = await self._built()
        for part in app.background:
            self._started.append(part)
            await part.start()
        address = await self._serve(app)
        announcement = self._announcement(app, address)
        registration = Registration(self._kit.etcd, announcement, self._settings.lease_seconds)
        self._registration = registration
        self._kit.on_facts = lambda: registration.say(self._kit.facts)
        await registration.start()
        _log.info(
            "serving",
            address=address,
            admin=self._admin.address,
            channelz=self._admin.channelz_address,
        )

    async def _built(self) -> App:
        try:
            return await self._build(self._kit)
        except MeshqError as error:
            raise StartupError(error.message) from error

    async def _serve(self, app: App) -> str:
        """Serve gRPC and return the address."""
        self._server = build_server(app.services, self._health, self._calls, app.described)
        port = listen(self._server, self._settings.listen)
        await self._server.start()
        await set_serving(self._health, [service.name for service in app.services])
        self._serving = True
        host = self._settings.listen.rpartition(":")[0]
        return await reachable(self._settings.advertise or f"{host}:{port}")

    def _announcement(self, app: App, address: str) -> Announcement:
        settings = self._settings
        facts = {
            "services": [service.name for service in app.services],
            "zone": settings.zone,
            "version": metadata.version("meshq"),
            "weight": settings.weight,
            "admin": self._admin.address,
            "channelz": self._admin.channelz_address,
            "register_time": time.time(),
        }
        return Announcement(
            settings.component, settings.instance_id, address, {**facts, **app.metadata, **self._kit.facts}
        )

    async def stop(self) -> None:
        """Stop whatever was started."""
        _log.info("stopping")
        await self._leave()
        await self._drain()
        await self._finish()
        for part in reversed(self._started):
            await self._bounded(part.stop(), _STOP_SECONDS, f"stopping {type(part).__name__}")
        await self._bounded(self._kit.close(), _STOP_SECONDS, "closing channels")
        await self._bounded(self._admin.stop(), _STOP_SECONDS, "closing the admin port")
        _log.info("stopped")

    async def _leave(self) -> None:
        """Let callers know: first those who balance by the registry, then those who ask for health."""
        self._serving = False
        registered = self._registration is not None
        if self._registration is not None:
            await self._bounded(self._registration.stop(), _STOP_SECONDS, "deregistering")
        await self._health.enter_graceful_shutdown()
        if registered:
            delay = self._settings.drain_delay
            await self._signals.bounded(asyncio.sleep(delay), delay + 1, hurried_seconds=0)

    async def _drain(self) -> None:
        if self._app is None or self._app.drain is None:
            return
        if not await self._bounded(self._app.drain(), self._settings.drain_timeout, "draining"):
            _log.warning("not drained in time")

    async def _finish(self) -> None:
        """Take no further calls and let those under way end."""
        if self._server is not None:
            timeout = self._settings.drain_timeout
            # gRPC cancels what has arrived and was not begun when it stops. Who has heard late of the stop is
            # served as long as such calls come, within reason.
            late = min(timeout, _LATE_CALLERS_SECONDS)
            await self._bounded(self._calls.unasked(_UNASKED_SECONDS), late, "waiting for the last calls")
            refusing = asyncio.create_task(self._server.stop(timeout))
            # Not all calls: health and reflection may be watched for ever.
            await self._bounded(self._calls.quiet(), timeout, "finishing calls")
            await self._server.stop(None)
            await refusing

    async def _bounded(self, work: Awaitable[object], seconds: float, name: str) -> bool:
        try:
            return await self._signals.bounded(work, seconds)
        except Exception as error:  # noqa: BLE001
            _log.error("stopping goes on after an error", during=name, exc_info=error)
            return False
