"""One stream to each instance of a component, following the directory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

import grpc

from meshq.mesh.directory import Instance, InstanceDirectory
from meshq.mesh.lifecycle import backoff, cancelled
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_MAX_BACKOFF = 3.0
_STEADY_SECONDS = 5.0


class StreamLost(Exception):
    """The other side ended the stream, or is silent."""


class Link(Protocol):
    """What is kept up to one instance."""

    async def run(self) -> None:
        """Open the stream and use it until it is lost, which raises."""

    async def retire(self) -> None:
        """Bring what is under way to an end; the instance is about to go."""


L = TypeVar("L", bound=Link)


class Fleet(Generic[L]):
    """Keeps one link to each instance of a component.

    Args:
        name: For the log.
        directory: Who the instances are.
        link: Makes the link to an instance.
        own_id: An instance that is left out: this one.
    """

    def __init__(
        self, name: str, directory: InstanceDirectory, link: Callable[[Instance], L], own_id: str = ""
    ) -> None:
        self._name = name
        self._directory = directory
        self._link = link
        self._own_id = own_id
        self._links: dict[tuple[str, str], tuple[L, asyncio.Task[None]]] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._running = False
        self._subscribed = False

    async def start(self) -> None:
        """Link to all instances, and to those that come."""
        self._running = True
        if not self._subscribed:
            self._subscribed = True
            self._directory.subscribe(self._update)
        self._update()

    async def stop(self) -> None:
        """End all links."""
        self._running = False
        self._update()
        await asyncio.gather(*self._retiring)

    def links(self) -> list[L]:
        """The links that are kept now."""
        return [link for link, _ in self._links.values()]

    def _update(self) -> None:
        wanted = {
            (item.instance_id, item.address): item
            for item in self._directory.instances.values()
            if self._running and item.instance_id != self._own_id
        }
        for key in self._links.keys() - wanted.keys():
            retiring = asyncio.create_task(_retire(*self._links.pop(key)))
            self._retiring.add(retiring)
            retiring.add_done_callback(self._retiring.discard)
        for key in wanted.keys() - self._links.keys():
            link = self._link(wanted[key])
            name = f"{self._name} {key[0]}"
            self._links[key] = link, asyncio.create_task(_keep_up(link, name), name=name)


async def _retire(link: Link, task: asyncio.Task[None]) -> None:
    await link.retire()
    await cancelled(task)


async def _keep_up(link: Link, name: str) -> None:
    failures = 0
    clock = asyncio.get_running_loop().time
    while True:
        began = clock()
        try:
            await link.run()
        except (StreamLost, grpc.RpcError, TimeoutError) as error:
            failures = 1 if clock() - began > _STEADY_SECONDS else failures + 1
            tell = _log.info if failures == 1 else _log.debug
            tell("stream lost", stream=name, reason=_reason(error), failures=failures)
        except Exception:  # noqa: BLE001
            failures += 1
            _log.exception("stream broken", stream=name)
        await asyncio.sleep(backoff(failures, most=_MAX_BACKOFF))


def _reason(error: Exception) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error) or type(error).__name__


async def together(*parts: Awaitable[None]) -> None:
    """Run parts of a stream until one of them ends; the others are cancelled, and its error is raised."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
