"""The etcd client and the registration on a real etcd that is compacted, restarted and emptied."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import grpc
import pytest
from pyetcd.etcdrpc import rpc_pb2, rpc_pb2_grpc

from meshq.local.ports import free_port
from meshq.local.servers import Etcd
from meshq.mesh.etcd import Changes, Deleted, Entry, EtcdClient, Listing, Written
from meshq.mesh.registration import Announcement, Registration

HERE = Announcement("meshq.management", "m-1", "127.0.0.1:7401", {"services": ["meshq.v1.TaskService"]})
LEASE = 2


@pytest.fixture
async def client(etcd: str) -> AsyncIterator[EtcdClient]:
    # The first endpoint is never there: every call has to find the second.
    opened = EtcdClient([f"127.0.0.1:{free_port()}", etcd])
    await eventually(lambda: opened.get_prefix("x"))
    yield opened
    await opened.close()


async def eventually(call: Any, seconds: float = 15) -> Any:
    """What the call returns, as soon as it neither fails nor is empty."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                if result := await call():
                    return result
            except Exception:  # noqa: BLE001
                pass
            await asyncio.sleep(0.02)


class Follower:
    """What a watch told, in order."""

    def __init__(self, client: EtcdClient, prefix: str) -> None:
        self.updates: asyncio.Queue[Listing | Changes] = asyncio.Queue()
        self._task = asyncio.create_task(self._follow(client, prefix))

    async def _follow(self, client: EtcdClient, prefix: str) -> None:
        async for update in client.watch(prefix):
            self.updates.put_nowait(update)

    async def next(self) -> Listing | Changes:
        return await asyncio.wait_for(self.updates.get(), 15)

    async def listing(self) -> Listing:
        """The next listing; changes before it are skipped."""
        while not isinstance(update := await self.next(), Listing):
            pass
        return update

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.fixture
async def follower(client: EtcdClient) -> AsyncIterator[Follower]:
    started = Follower(client, "ring/")
    yield started
    await started.stop()


async def entry(client: EtcdClient) -> Entry | None:
    return await client.get(HERE.key)


@pytest.fixture
async def registration(client: EtcdClient) -> AsyncIterator[Registration]:
    started = Registration(client, HERE, LEASE)
    await started.start()
    await eventually(lambda: entry(client))
    yield started
    await started.stop()


async def test_put_get_delete(client: EtcdClient) -> None:
    await client.put("ring/a", b"1")
    await client.put("ring/b", b"2")
    await client.put("rinh", b"3")
    assert [(item.key, item.value) for item in (await client.get_prefix("ring/")).entries] == [
        ("ring/a", b"1"),
        ("ring/b", b"2"),
    ]
    await client.delete("ring/a")
    await client.delete("ring/a")
    assert await client.get("ring/a") is None


async def test_a_watch_lists_and_follows(client: EtcdClient, follower: Follower) -> None:
    assert (await follower.listing()).entries == ()
    await client.put("ring/a", b"1")
    await client.put("other", b"1")
    await client.delete("ring/a")
    events: list[Any] = []
    while len(events) < 2:
        update = await follower.next()
        assert isinstance(update, Changes)
        events.extend(update.events)
    assert isinstance(events[0], Written)
    assert (events[0].entry.key, events[0].entry.value) == ("ring/a", b"1")
    assert events[1] == Deleted("ring/a", b"1")


async def test_a_watch_survives_a_restart(client: EtcdClient, etcd_server: Etcd, follower: Follower) -> None:
    await follower.listing()
    await client.put("ring/a", b"1")
    await follower.next()
    etcd_server.kill()
    etcd_server.start()
    assert [item.key for item in (await follower.listing()).entries] == ["ring/a"]
    await eventually(lambda: client.put("ring/b", b"2"))
    assert isinstance(await follower.next(), Changes)


async def test_a_watch_survives_an_emptied_etcd(
    client: EtcdClient, etcd_server: Etcd, follower: Follower
) -> None:
    for number in range(20):
        await client.put(f"ring/{number}", b"x")
    etcd_server.kill()
    shutil.rmtree(etcd_server.data)
    etcd_server.start()
    # The new etcd counts from the beginning: a watch from an old revision would never see this.
    await eventually(lambda: client.put("ring/new", b"1"))
    while "ring/new" not in str(await follower.next()):
        pass


async def test_a_watch_survives_compaction_while_it_was_away(
    client: EtcdClient, etcd: str, etcd_server: Etcd, follower: Follower
) -> None:
    await follower.listing()
    for number in range(50):
        await client.put("ring/a", str(number).encode())
    revision = await client.put("ring/b", b"last")
    etcd_server.kill()
    etcd_server.start()
    await asyncio.to_thread(etcd_server.wait_ready)
    async with grpc.aio.insecure_channel(etcd) as channel:
        stub = rpc_pb2_grpc.KVStub(channel)
        await stub.Compact(rpc_pb2.CompactionRequest(revision=revision, physical=True), timeout=30)
    listing = await follower.listing()
    assert {item.key: item.value for item in listing.entries} == {"ring/a": b"49", "ring/b": b"last"}


async def streams_begun(etcd: str) -> int:
    """How many streams for renewing leases etcd has seen."""
    async with aiohttp.ClientSession() as session, session.get(f"http://{etcd}/metrics") as response:
        text = await response.text()
    found = re.search(r"^grpc_server_started_total{[^}]*LeaseKeepAlive[^}]*} (\d+)$", text, re.MULTILINE)
    assert found is not None
    return int(found[1])


async def test_a_lease_is_renewed_on_one_stream(client: EtcdClient, etcd: str) -> None:
    begun = await streams_begun(etcd)
    lease = await client.grant(60)
    assert [await client.keep_alive(lease) for _ in range(5)] == [True] * 5
    assert await streams_begun(etcd) == begun + 1
    await client.revoke(lease)
    assert not await client.keep_alive(lease)


async def test_an_interrupted_renewal_does_not_answer_the_next(client: EtcdClient) -> None:
    lease = await client.grant(60)
    assert await client.keep_alive(lease)
    renewing = asyncio.create_task(client.keep_alive(lease))
    await asyncio.sleep(0)
    renewing.cancel()
    await asyncio.gather(renewing, return_exceptions=True)
    await client.revoke(lease)
    assert not await client.keep_alive(lease)


async def test_a_renewal_after_a_restart_needs_no_second_try(client: EtcdClient, etcd_server: Etcd) -> None:
    lease = await client.grant(60)
    assert await client.keep_alive(lease)
    etcd_server.kill()
    etcd_server.start()
    await eventually(lambda: client.get_prefix("x"))
    assert await client.keep_alive(lease)


async def test_registration_hangs_on_a_lease(client: EtcdClient, registration: Registration) -> None:
    found = await entry(client)
    assert found is not None
    assert found.lease
    assert Announcement.decode(found.key, found.value) == HERE


async def test_goodbye_can_be_told_from_a_lost_lease(client: EtcdClient, registration: Registration) -> None:
    follower = Follower(client, HERE.key)
    await follower.listing()
    await registration.stop()
    last: Any = None
    while not isinstance(last, Deleted):
        update = await follower.next()
        assert isinstance(update, Changes)
        last = update.events[-1]
    await follower.stop()
    told = Announcement.decode(HERE.key, last.previous)
    assert told is not None
    assert told.goodbye


async def test_registration_renews_its_lease(client: EtcdClient, registration: Registration) -> None:
    before = await entry(client)
    await asyncio.sleep(LEASE * 2)
    assert await entry(client) == before


async def test_registration_says_what_is_new_at_once(client: EtcdClient, registration: Registration) -> None:
    registration.say({"leader": True})

    async def said() -> bool:
        found = await entry(client)
        announced = found and Announcement.decode(found.key, found.value)
        return bool(announced and announced.metadata == {**HERE.metadata, "leader": True})

    await eventually(said)


@pytest.mark.parametrize("loss", ["key", "lease"])
async def test_registration_comes_back(client: EtcdClient, registration: Registration, loss: str) -> None:
    before = await entry(client)
    assert before is not None
    await (client.delete(HERE.key) if loss == "key" else client.revoke(before.lease))
    after = await eventually(lambda: entry(client))
    assert after.revision > before.revision
    assert after.value == before.value


async def test_a_registration_does_not_wait_for_its_next_renewal(client: EtcdClient) -> None:
    registration = Registration(client, HERE, 600)
    await registration.start()
    try:
        before = await eventually(lambda: entry(client))
        for change in (lambda: client.delete(HERE.key), lambda: client.put(HERE.key, b"nonsense")):
            await change()

            async def is_back() -> bool:
                found = await entry(client)
                return found is not None and (found.value, found.lease) == (HERE.encode(), before.lease)

            await eventually(is_back)
    finally:
        await registration.stop()


async def test_registration_survives_an_emptied_etcd(
    client: EtcdClient, etcd_server: Etcd, registration: Registration
) -> None:
    etcd_server.kill()
    shutil.rmtree(etcd_server.data)
    etcd_server.start()
    assert (await eventually(lambda: entry(client))).value == HERE.encode()


async def test_stopping_does_not_wait_for_etcd(
    client: EtcdClient, etcd_server: Etcd, registration: Registration
) -> None:
    etcd_server.kill()
    async with asyncio.timeout(20):
        await registration.stop()
        await registration.stop()
