"""A thin etcd client on `grpc.aio`: read a prefix, put, delete, follow a prefix, hold a lease.

The stubs are those of `pyetcd`. Each call goes to one endpoint; when that one does not answer, the
next call goes to the next. Following survives everything: after a lost connection, a restart, a
compaction or a change to another etcd the whole prefix is listed again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import grpc
from pyetcd.etcdrpc import kv_pb2, rpc_pb2, rpc_pb2_grpc

from meshq.contract.errors import MeshqError, Unavailable
from meshq.contract.limits import MAX_MESSAGE_BYTES
from meshq.contract.status import from_rpc_error
from meshq.mesh.lifecycle import backoff
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_CALL_SECONDS: Final = 3.0
_MAX_WATCH_BACKOFF: Final = 2.0
# Without a leader a watch would be silent instead of failing.
_NEEDS_LEADER: Final = (("hasleader", "true"),)
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Small messages need no estimate of the bandwidth, which is a ping for nearly every one of them.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Pings must come from a connection of this client's own.
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A key with its value.

    Attributes:
        lease: The lease that it hangs on; 0 for none.
        revision: When it was last written.
    """

    key: str
    value: bytes
    lease: int
    revision: int


@dataclass(frozen=True, slots=True)
class Listing:
    """All entries of a prefix; replaces whatever was known."""

    entries: tuple[Entry, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class Written:
    """An entry was made or changed."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Deleted:
    """A key was deleted or its lease ended. `previous` is its last value; empty when not known."""

    key: str
    previous: bytes


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened after the listing or the changes before, in order."""

    events: tuple[Written | Deleted, ...]
    revision: int


class EtcdClient:
    """See the module.

    Args:
        endpoints: `host:port` of each etcd server.
    """

    def __init__(self, endpoints: Sequence[str]) -> None:
        self._endpoints = tuple(endpoints)
        self._current = 0
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._renewals: dict[int, Any] = {}

    async def close(self) -> None:
        """Close all connections."""
        for lease in tuple(self._renewals):
            self._renewals.pop(lease).cancel()
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close()

    async def get_prefix(self, prefix: str) -> Listing:
        """All entries whose keys begin with the prefix.

        Raises:
            MeshqError: etcd did not answer, or refused; so for all methods.
        """
        request = rpc_pb2.RangeRequest(key=prefix.encode(), range_end=_end_of(prefix))
        response = await self._call(self._kv().Range(request, timeout=_CALL_SECONDS))
        return Listing(tuple(_entry(item) for item in response.kvs), response.header.revision)

    async def get(self, key: str) -> Entry | None:
        """The entry of a key, if there is one."""
        response = await self._call(
            self._kv().Range(rpc_pb2.RangeRequest(key=key.encode()), timeout=_CALL_SECONDS)
        )
        return _entry(response.kvs[0]) if response.kvs else None

    async def put(self, key: str, value: bytes, lease: int = 0) -> int:
        """Write an entry, on a lease if one is given; returns the revision."""
        request = rpc_pb2.PutRequest(key=key.encode(), value=value, lease=lease)
        response = await self._call(self._kv().Put(request, timeout=_CALL_SECONDS))
        return int(response.header.revision)

    async def create(self, key: str, value: bytes, lease: int = 0) -> bool:
        """Write an entry, on a lease if one is given, unless the key exists; whether it was written."""
        put = rpc_pb2.PutRequest(key=key.encode(), value=value, lease=lease)
        missing = rpc_pb2.Compare(
            key=key.encode(),
            target=rpc_pb2.Compare.VERSION,
            result=rpc_pb2.Compare.EQUAL,
            version=0,
        )
        request = rpc_pb2.TxnRequest(compare=[missing], success=[rpc_pb2.RequestOp(request_put=put)])
        response = await self._call(self._kv().Txn(request, timeout=_CALL_SECONDS))
        return bool(response.succeeded)

    async def delete(self, key: str) -> None:
        """Delete a key; it need not exist."""
        request = rpc_pb2.DeleteRangeRequest(key=key.encode())
        await self._call(self._kv().DeleteRange(request, timeout=_CALL_SECONDS))

    async def grant(self, seconds: int) -> int:
        """A new lease."""
        stub = rpc_pb2_grpc.LeaseStub(self._channel())
        response = await self._call(
            stub.LeaseGrant(rpc_pb2.LeaseGrantRequest(TTL=seconds), timeout=_CALL_SECONDS)
        )
        return int(response.ID)

    async def keep_alive(self, lease: int) -> bool:
        """Renew a lease, one call at a time; the stream stays for the next time.

        Returns:
            Whether it still existed.
        """
        call = self._renewals.pop(lease, None)
        if call is None or call.done():
            call = rpc_pb2_grpc.LeaseStub(self._channel()).LeaseKeepAlive()
        alive = False
        try:
            alive = await self._renew(call, lease)
        finally:
            # One whose answer is still to come would answer the next renewal with it.
            if alive:
                self._renewals[lease] = call
            else:
                call.cancel()
        return alive

    async def _renew(self, call: Any, lease: int) -> bool:
        with self._translated():
            async with asyncio.timeout(_CALL_SECONDS):
                await call.write(rpc_pb2.LeaseKeepAliveRequest(ID=lease))
                response = await call.read()
        if response is grpc.aio.EOF:
            raise Unavailable("etcd closed the stream")
        return bool(response.TTL > 0)

    async def revoke(self, lease: int) -> None:
        """End a lease, and with it the keys that hang on it."""
        if renewal := self._renewals.pop(lease, None):
            renewal.cancel()
        stub = rpc_pb2_grpc.LeaseStub(self._channel())
        await self._call(stub.LeaseRevoke(rpc_pb2.LeaseRevokeRequest(ID=lease), timeout=_CALL_SECONDS))

    async def watch(self, prefix: str) -> AsyncIterator[Listing | Changes]:
        """Follow a prefix for ever: a listing, then changes; a new listing whenever some may be missing."""
        failures = 0
        while True:
            try:
                async for update in self._watch_once(prefix):
                    failures = 0
                    yield update
            except MeshqError as error:
                failures += 1
                if failures == 1:
                    _log.warning("etcd watch lost; following again", prefix=prefix, reason=error.message)
                await asyncio.sleep(backoff(failures, most=_MAX_WATCH_BACKOFF))

    async def _watch_once(self, prefix: str) -> AsyncIterator[Listing | Changes]:
        listing = await self.get_prefix(prefix)
        yield listing
        create = rpc_pb2.WatchCreateRequest(
            key=prefix.encode(),
            range_end=_end_of(prefix),
            start_revision=listing.revision + 1,
            prev_kv=True,
        )
        call = rpc_pb2_grpc.WatchStub(self._channel()).Watch(metadata=_NEEDS_LEADER)
        try:
            with self._translated():
                await call.write(rpc_pb2.WatchRequest(create_request=create))
            while True:
                response = await self._call(call.read())
                if response is grpc.aio.EOF or response.canceled:
                    raise Unavailable(_why_cancelled(response))
                if response.events:
                    events = tuple(_event(item) for item in response.events)
                    yield Changes(events, response.header.revision)
        finally:
            call.cancel()

    def _kv(self) -> Any:
        return rpc_pb2_grpc.KVStub(self._channel())

    def _channel(self) -> grpc.aio.Channel:
        endpoint = self._endpoints[self._current]
        channel = self._channels.get(endpoint)
        if channel is None:
            channel = self._channels[endpoint] = grpc.aio.insecure_channel(endpoint, options=_OPTIONS)
        return channel

    async def _call(self, call: Awaitable[Any]) -> Any:
        with self._translated():
            return await call

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """The errors of gRPC as those of meshq; an endpoint that fails is left for the next."""
        try:
            yield
        except grpc.RpcError as error:
            self._next_endpoint()
            raise from_rpc_error(error) from error
        except TimeoutError as error:
            self._next_endpoint()
            raise Unavailable("etcd does not answer") from error
        except (asyncio.InvalidStateError, grpc.aio.UsageError) as error:
            raise Unavailable("the connection to etcd was closed") from error

    def _next_endpoint(self) -> None:
        self._current = (self._current + 1) % len(self._endpoints)


def _end_of(prefix: str) -> bytes:
    """The key after the last one with the prefix; prefixes end with an ASCII character."""
    raw = prefix.encode()
    return raw[:-1] + bytes([raw[-1] + 1])


def _entry(item: kv_pb2.KeyValue) -> Entry:
    return Entry(item.key.decode("utf-8", "replace"), item.value, item.lease, item.mod_revision)


def _event(item: kv_pb2.Event) -> Written | Deleted:
    if item.type == kv_pb2.Event.DELETE:
        return Deleted(item.kv.key.decode("utf-8", "replace"), item.prev_kv.value)
    return Written(_entry(item.kv))


def _why_cancelled(response: Any) -> str:
    if response is grpc.aio.EOF:
        return "etcd closed the watch"
    if response.compact_revision:
        return f"etcd compacted up to revision {response.compact_revision}"
    return response.cancel_reason or "etcd cancelled the watch"
