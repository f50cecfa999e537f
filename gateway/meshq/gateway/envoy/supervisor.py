"""Keeps Envoy running: starts it, starts it again when it ends, drains and stops it with the gateway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import aiohttp
from envoy.config.bootstrap.v3 import bootstrap_pb2
from prometheus_client import Counter, Gauge

from meshq.gateway.envoy.admin import AdminUnreachable, EnvoyAdmin
from meshq.gateway.envoy.process import EnvoyProcess
from meshq.mesh.lifecycle import backoff, cancelled
from meshq.mesh.process import StartupError
from meshq.mesh.telemetry import logger

_log = logger(__name__)

Answer = TypeVar("Answer")

RESTARTS: Final = Counter(
    "meshq_gateway_envoy_restarts", "How often Envoy ended by itself and was started again."
)
UP: Final = Gauge("meshq_gateway_envoy_up", "1 while Envoy serves.")

_START_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.03
_QUIET_SECONDS: Final = 0.1
_STEADY_SECONDS: Final = 30.0
"""An Envoy that ran for so long was not started in vain."""
_MAX_BACKOFF: Final = 5.0


class EnvoyFailed(Exception):
    """Envoy ended before it served, or did not come to serve in time."""


@dataclass(frozen=True)
class EnvoyState:
    """How Envoy is just now.

    Attributes:
        live: Whether it serves.
        routes: Whether it knows where to send calls.
        active_calls: How many calls are under way.
        restarts: How often it was started again.
        draining: Whether it is about to stop.
    """

    live: bool
    routes: bool
    active_calls: int
    restarts: int
    draining: bool = False


class EnvoySupervisor:
    """Runs one Envoy after the other, all on the same port.

    Args:
        program: The program.
        config: Builds the bootstrap for an address, `host:port`, at which the edge is to listen.
        listen: That address; with port 0 the first Envoy's port is kept.
        workers: Envoy's worker threads.
        drain_seconds: For how long new connections are taken while it is drained.

    Attributes:
        address: Where the edge listens.
    """

    def __init__(
        self,
        program: Path,
        config: Callable[[str], bootstrap_pb2.Bootstrap],
        listen: str,
        workers: int,
        drain_seconds: float,
    ) -> None:
        self.address = listen
        self._program = program
        self._config = config
        self._workers = workers
        self._drain_seconds = drain_seconds
        self._restarts = 0
        self._draining = False
        self._process: EnvoyProcess | None = None
        self._admin: EnvoyAdmin | None = None
        self._session: aiohttp.ClientSession | None = None
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start Envoy; returns when it serves.

        Raises:
            StartupError: It does not come to serve, for example because the port is taken.
        """
        if self._session is not None:
            return
        self._session = aiohttp.ClientSession()
        try:
            await self._launch()
        except (EnvoyFailed, OSError) as error:
            raise StartupError(f"the edge at {self.address} cannot be opened: {error}") from error
        _log.info("edge is open", address=self.address)
        self._watching = asyncio.create_task(self._watch(), name="supervision of envoy")

    async def drain(self) -> None:
        """Tell callers to go elsewhere; returns when no call is under way any more."""
        self._draining = True
        self._admin = self._admin or await self._admin_of_interrupted_start()
        if self._admin is None:
            return
        try:
            await self._admin.drain()
            await _until(self._is_quiet, _QUIET_SECONDS)
        except AdminUnreachable as error:
            _log.warning("cannot drain", reason=str(error))

    async def stop(self) -> None:
        """Stop Envoy for good."""
        watching, self._watching = self._watching, None
        if watching is not None:
            await cancelled(watching)
        await self._end()
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def state(self) -> EnvoyState:
        """How Envoy is just now."""
        admin = self._admin
        if admin is not None:
            try:
                return EnvoyState(
                    live=await admin.live(),
                    routes=await admin.has_routes(),
                    active_calls=await admin.active_calls(),
                    restarts=self._restarts,
                    draining=self._draining,
                )
            except AdminUnreachable:
                pass
        return EnvoyState(live=False, routes=False, active_calls=0, restarts=self._restarts)

    async def metrics(self) -> str:
        """Envoy's statistics as Prometheus text; empty while it does not answer."""
        try:
            return await self._admin.metrics() if self._admin is not None else ""
        except AdminUnreachable:
            return ""

    @property
    def pid(self) -> int | None:
        """The process id of the Envoy that runs."""
        return self._process.pid if self._process is not None else None

    async def _watch(self) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            if self._process is not None:
                code = await self._process.wait()
                _log.error("envoy ended", exit_code=code, said=list(self._process.complaints))
            failures = 1 if time.monotonic() - began > _STEADY_SECONDS else failures + 1
            await self._end()
            await asyncio.sleep(backoff(failures, most=_MAX_BACKOFF))
            self._restarts += 1
            RESTARTS.inc()
            try:
                await self._launch()
            except (EnvoyFailed, OSError) as error:
                _log.error("envoy was started in vain", reason=str(error))
            else:
                _log.info("envoy serves again", address=self.address)

    async def _launch(self) -> None:
        process = self._process = EnvoyProcess(self._program, self._workers, self._drain_seconds)
        await process.start(self._config(self.address))
        try:
            await self._until_ready(process)
        except EnvoyFailed:
            await self._end()
            raise
        UP.set(1)

    async def _until_ready(self, process: EnvoyProcess) -> None:
        ended = asyncio.create_task(process.wait())
        ready = asyncio.create_task(self._ready(process))
        try:
            await asyncio.wait({ended, ready}, timeout=_START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                raise EnvoyFailed(await _why(process, ended))
            await ready
        finally:
            for task in (ended, ready):
                task.cancel()
            await asyncio.gather(ended, ready, return_exceptions=True)

    async def _admin_of_interrupted_start(self) -> EnvoyAdmin | None:
        """Envoy takes calls before the start has found out that it does."""
        if self._process is None or self._session is None:
            return None
        address = await self._process.admin_address()
        return EnvoyAdmin(self._session, address) if address else None

    async def _is_quiet(self) -> bool:
        return self._admin is None or await self._admin.active_calls() == 0

    async def _ready(self, process: EnvoyProcess) -> None:
        assert self._session is not None
        address = await _until(process.admin_address, _LOOK_SECONDS)
        admin = EnvoyAdmin(self._session, address)
        await _until(admin.live, _LOOK_SECONDS)
        try:
            port = await admin.edge_port()
        except AdminUnreachable as error:
            raise EnvoyFailed(str(error)) from error
        self.address = f"{self.address.rpartition(':')[0]}:{port}"
        self._admin = admin

    async def _end(self) -> None:
        UP.set(0)
        self._admin = None
        process, self._process = self._process, None
        if process is not None:
            await process.stop()


async def _until(ask: Callable[[], Awaitable[Answer | None]], pause: float) -> Answer:
    """Ask until the answer is something; a process outside can only be asked again and again."""
    while True:
        if answer := await ask():
            return answer
        await asyncio.sleep(pause)


async def _why(process: EnvoyProcess, ended: asyncio.Task[int]) -> str:
    said = process.complaints[-1] if process.complaints else "it said nothing"
    if ended.done():
        return f"Envoy ended with code {await ended}; {said}"
    return f"Envoy does not serve after {_START_SECONDS:.0f} seconds; {said}"
