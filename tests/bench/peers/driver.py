"""One side at play: its stores, its client and its workers as processes, and the CPU that they take."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from bench.peers.catalogue import Peer, Setting, Stores

from meshq.local.errors import LocalError
from meshq.local.ports import free_port
from meshq.local.servers import Postgres, Server, Valkey, bound_to_parent
from meshq.local.system import System

TESTS = Path(__file__).resolve().parents[2]
ADAPTER_FOLDER = Path(__file__).with_name("adapters")
GIVE_UP_AFTER = 300.0
_STOP_WITHIN = 15.0
_DATABASE = "peers"
_RUNS_ON: Mapping[Stores, Callable[[Server, Server], list[Server]]] = {
    Stores.VALKEY: lambda valkey, _: [valkey],
    Stores.BOTH: lambda valkey, postgres: [valkey, postgres],
    Stores.POSTGRES: lambda _, postgres: [postgres],
}
_LINE_LIMIT = 1 << 24


class SideFailed(LocalError):
    """A side could not be played to its end."""


@dataclass(frozen=True, slots=True)
class Home:
    """Where a side finds things.

    Attributes:
        folder: For logs and data; empty at first.
        python: The interpreter that has the peer's packages.
        environment: For clients and workers.
    """

    folder: Path
    python: Path
    environment: Mapping[str, str]


class Driver:
    """The client of a side, a process that follows orders."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    async def order(self, words: str) -> dict[str, Any]:
        """Give an order and return its answer.

        Raises:
            SideFailed: The client has ended, or did not answer in time.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(words.encode() + b"\n")
        return await self.answer()

    async def answer(self) -> dict[str, Any]:
        """The next line of the client; raises as `order` does."""
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), GIVE_UP_AFTER)
        except TimeoutError:
            line = b""
        if not line:
            raise SideFailed(f"no answer: {' | '.join(self._log.read_text().splitlines()[-4:])}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextlib.asynccontextmanager
async def peer_side(peer: Peer, setting: Setting, python: Path, folder: Path) -> AsyncIterator[Driver]:
    """Start a peer's stores, its client, which prepares them, and its workers; end them backwards."""
    with stores(peer, folder) as urls:
        environment = {**urls, **setting.environment, "PEER_SETTING": setting.value}
        home = Home(folder, python, environment)
        async with contextlib.AsyncExitStack() as stack:
            driver = await stack.enter_async_context(client(peer.adapter, home))
            for number, words in enumerate(setting.workers, 1):
                await stack.enter_async_context(worker(f"worker-{number}", words, home))
            yield driver


@contextlib.asynccontextmanager
async def meshq_side(folder: Path) -> AsyncIterator[Driver]:
    """Start the whole of meshq and a client at its gateway."""
    async with System(ephemeral=True, port=0) as system:
        home = Home(folder, Path(sys.executable), {**system.environment, "PEER_MESHQ": system.edge})
        async with client("meshq", home) as driver:
            yield driver


@contextlib.contextmanager
def stores(peer: Peer, folder: Path) -> Iterator[dict[str, str]]:
    """Start fresh stores; their URLs, as adapters read them from the environment."""
    valkey = Valkey(folder / "valkey", free_port())
    postgres = Postgres(folder / "postgres", free_port(), databases=[_DATABASE])
    wanted = _RUNS_ON[peer.stores](valkey, postgres)
    try:
        for server in wanted:
            server.start()
        for server in wanted:
            server.wait_ready()
        yield {
            "PEER_VALKEY": f"redis://{valkey.address}/0",
            "PEER_POSTGRES": postgres.url(_DATABASE),
        }
    finally:
        for server in wanted:
            server.stop()


@contextlib.asynccontextmanager
async def client(adapter: str, home: Home) -> AsyncIterator[Driver]:
    """A client that is connected."""
    command = [str(home.python), "-m", "bench.peers.client", adapter]
    async with _process("client", command, home, asyncio.subprocess.PIPE) as (process, log):
        driver = Driver(process, log)
        await driver.answer()
        yield driver


@contextlib.asynccontextmanager
async def worker(name: str, words: str, home: Home) -> AsyncIterator[None]:
    """A worker that was started; it is ready when it has done a task."""
    program, *rest = shlex.split(words.format(valkey=home.environment.get("PEER_VALKEY", "")))
    command = [str(home.python.with_name(program)), *rest]
    async with _process(name, command, home, asyncio.subprocess.DEVNULL):
        yield


def cpu_seconds() -> float:
    """The processor time of this process and of all below it, those included that have ended."""
    own = psutil.Process()
    total = 0.0
    for process in (own, *own.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


@contextlib.asynccontextmanager
async def _process(
    name: str, command: list[str], home: Home, pipe: int
) -> AsyncIterator[tuple[asyncio.subprocess.Process, Path]]:
    log = home.folder / f"{name}.log"
    environment = {**os.environ, **home.environment, "PYTHONPATH": str(TESTS)}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *bound_to_parent(command),
            stdin=pipe,
            stdout=pipe if pipe == asyncio.subprocess.PIPE else output,
            stderr=output,
            env=environment,
            cwd=home.folder,
            limit=_LINE_LIMIT,
            start_new_session=True,
        )
    try:
        yield process, log
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ask the process to end, and kill what is left of it and of its children."""
    family = []
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _STOP_WITHIN)
    except TimeoutError:
        process.kill()
        await process.wait()
    for child in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
