"""The asyncio client: tasks and queues from their modules, workers and the mesh."""
# ruff: noqa: ASYNC109 - a timeout here is a gRPC deadline: it travels to the server.

from __future__ import annotations

from collections.abc import AsyncIterator

from meshq.client import operations
from meshq.client.async_queues import AsyncQueues
from meshq.client.async_tasks import AsyncTasks
from meshq.client.models import Instance, Ring, Service, Shard, Worker


class Client(AsyncTasks, AsyncQueues):
    """Creates tasks and says what becomes of them, with asyncio.

    One client holds one channel, is safe to share within its event loop, and is closed by `close` or
    `async with`. Every method raises the errors of `meshq.contract.errors`. Calls that are safe to repeat
    are repeated when the server is unavailable or asks for patience, within their timeout; writes always
    carry a request id, so that repeating them makes nothing twice.

    Args:
        target: `host:port` or a gRPC target such as `xds:///meshq`; by default the environment's
            `MESHQ_TARGET`, or `localhost:8080`.
        timeout: Seconds that a call may take, its repetitions included, where the method is given none.
        retry: How calls are repeated.
        channel: A channel to use instead of one of its own; it is not closed with the client.
    """

    def workers(self, *, timeout: float | None = None) -> AsyncIterator[Worker]:
        """Iterate over the connected workers, by id."""
        return self._items(operations.list_workers, timeout)

    async def worker(self, worker_id: str, *, timeout: float | None = None) -> Worker:
        """Read one worker."""
        return await self._perform(operations.get_worker(worker_id), timeout)

    async def services(self, *, timeout: float | None = None) -> tuple[Service, ...]:
        """Read the gRPC services of the mesh."""
        return await self._perform(operations.list_services(), timeout)

    async def instances(self, component: str = "", *, timeout: float | None = None) -> tuple[Instance, ...]:
        """Read the processes of the mesh, of one component or of all."""
        return await self._perform(operations.list_instances(component), timeout)

    async def shards(self, *, timeout: float | None = None) -> Ring:
        """Read the ring of shards."""
        return await self._perform(operations.list_shards(), timeout)

    async def add_shard(
        self, name: str, address: str, weight: int = 1, *, timeout: float | None = None
    ) -> Shard:
        """Take a server into the ring: `host:port`, or `sentinel://host:port,host:port/primary`."""
        return await self._perform(operations.add_shard(name, address, weight), timeout)

    async def update_shard(
        self,
        name: str,
        *,
        address: str | None = None,
        weight: int | None = None,
        timeout: float | None = None,
    ) -> Shard:
        """Change a shard's address or weight; what is None stays."""
        return await self._perform(operations.update_shard(name, address, weight), timeout)

    async def drain_shard(self, name: str, *, timeout: float | None = None) -> Shard:
        """Let a shard take no more tasks; what waits there moves to the others."""
        return await self._perform(operations.drain_shard(name), timeout)

    async def activate_shard(self, name: str, *, timeout: float | None = None) -> Shard:
        """Let a draining shard take tasks again."""
        return await self._perform(operations.activate_shard(name), timeout)

    async def remove_shard(self, name: str, *, force: bool = False, timeout: float | None = None) -> Shard:
        """Take a drained, empty shard out of the ring, or with `force` one that is OUT."""
        return await self._perform(operations.remove_shard(name, force=force), timeout)
