"""The synchronous client: tasks and queues from their modules, workers and the mesh."""

from __future__ import annotations

from collections.abc import Iterator

from meshq.client import operations
from meshq.client.models import Instance, Ring, Service, Shard, Worker
from meshq.client.sync_queues import SyncQueues
from meshq.client.sync_tasks import SyncTasks


class SyncClient(SyncTasks, SyncQueues):
    """Creates tasks and says what becomes of them, without asyncio.

    The methods and their errors are those of `Client`. One client may be shared by threads; it must not
    cross a fork.

    Args:
        target: `host:port` or a gRPC target such as `xds:///meshq`; by default the environment's
            `MESHQ_TARGET`, or `localhost:8080`.
        timeout: Seconds that a call may take, its repetitions included, where the method is given none.
        retry: How calls are repeated.
        channel: A channel to use instead of one of its own; it is not closed with the client.
    """

    def workers(self, *, timeout: float | None = None) -> Iterator[Worker]:
        """Iterate over the connected workers, by id."""
        return self._items(operations.list_workers, timeout)

    def worker(self, worker_id: str, *, timeout: float | None = None) -> Worker:
        """Read one worker."""
        return self._perform(operations.get_worker(worker_id), timeout)

    def services(self, *, timeout: float | None = None) -> tuple[Service, ...]:
        """Read the gRPC services of the mesh."""
        return self._perform(operations.list_services(), timeout)

    def instances(self, component: str = "", *, timeout: float | None = None) -> tuple[Instance, ...]:
        """Read the processes of the mesh, of one component or of all."""
        return self._perform(operations.list_instances(component), timeout)

    def shards(self, *, timeout: float | None = None) -> Ring:
        """Read the ring of shards."""
        return self._perform(operations.list_shards(), timeout)

    def add_shard(self, name: str, address: str, weight: int = 1, *, timeout: float | None = None) -> Shard:
        """Take a server into the ring: `host:port`, or `sentinel://host:port,host:port/primary`."""
        return self._perform(operations.add_shard(name, address, weight), timeout)

    def update_shard(
        self,
        name: str,
        *,
        address: str | None = None,
        weight: int | None = None,
        timeout: float | None = None,
    ) -> Shard:
        """Change a shard's address or weight; what is None stays."""
        return self._perform(operations.update_shard(name, address, weight), timeout)

    def drain_shard(self, name: str, *, timeout: float | None = None) -> Shard:
        """Let a shard take no more tasks; what waits there moves to the others."""
        return self._perform(operations.drain_shard(name), timeout)

    def activate_shard(self, name: str, *, timeout: float | None = None) -> Shard:
        """Let a draining shard take tasks again."""
        return self._perform(operations.activate_shard(name), timeout)

    def remove_shard(self, name: str, *, force: bool = False, timeout: float | None = None) -> Shard:
        """Take a drained, empty shard out of the ring, or with `force` one that is OUT."""
        return self._perform(operations.remove_shard(name, force=force), timeout)
