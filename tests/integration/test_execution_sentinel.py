"""Shards whose primary is named by Sentinels: following it, and what a failover does to tasks."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import hiredis
import pytest
from fixtures.execution import Cluster, Dispatcher, Instance, cluster, wait_until
from fixtures.sentinels import PRIMARY, Member, WatchedShard, ask, watched_shard
from prometheus_client import REGISTRY

from meshq.execution.ring.address import Server
from meshq.execution.ring.errors import ShardUnavailable
from meshq.execution.ring.primary import Passwords, open_primary, primary_of
from meshq.execution.ring.shard import Shard, ShardState
from meshq.internal.v1 import dispatch_service_pb2 as dispatch_pb
from meshq.local.ports import free_port
from meshq.v1 import ring_service_pb2 as ring_pb

pytestmark = [pytest.mark.timeout(180), pytest.mark.slow]

SUCCEEDED = 1
PRESENT, MISSING = 1, 2
WITHIN = 60.0
NOBODY = Passwords()


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[WatchedShard]:
    with watched_shard(tmp_path / "watched") as found:
        await wait_until(found.complete, "Sentinels that know everybody", WITHIN)
        yield found


@pytest.fixture
async def system(database: str, watched: WatchedShard) -> AsyncIterator[Cluster]:
    async with cluster(database, {"shard-1": watched.address}) as system:
        yield system


def shard_of(instance: Instance) -> Shard:
    found = instance.execution.shards.get("shard-1")
    assert found
    return found


async def at(instance: Instance, server: Member, epoch: int = 0) -> None:
    """Wait until the shard is open at this server, in a later epoch."""
    shard = shard_of(instance)
    await wait_until(
        lambda: shard.server == server.address and shard.state is ShardState.OPEN and shard.epoch > epoch,
        f"the shard at {server.address}",
        WITHIN,
    )


async def failed_over(watched: WatchedShard, before: Member) -> Member:
    await wait_until(lambda: watched.primary() is not before, "another primary", WITHIN)
    return watched.primary()


def is_replica(server: Member) -> bool:
    try:
        return str(ask(server, "ROLE")[0]) == "slave"
    except OSError:  # Sentinels end its connections when it becomes one.
        return False


async def states(instance: Instance, *ids: bytes) -> list[int]:
    attempts = [dispatch_pb.TaskAttempt(task_id=task_id, attempt=1) for task_id in ids]
    request = dispatch_pb.CompareTasksRequest(attempts=attempts)
    return list((await instance.dispatch.CompareTasks(request)).states)


async def compare_asked(dispatcher: Dispatcher) -> None:
    async with asyncio.timeout(WITHIN):
        while not dispatcher.compares:
            await dispatcher.read()


def epochs_begun() -> float:
    return REGISTRY.get_sample_value("meshq_shard_epochs_total", {"shard": "shard-1"}) or 0.0


async def test_the_primary_is_the_one_that_sentinels_name(system: Cluster, watched: WatchedShard) -> None:
    instance = await system.start()
    await at(instance, watched.servers[0])
    task_id = await system.dispatcher(instance).one()
    worker = await system.worker(instance).connect(credit=1)
    await worker.finish(*await worker.next_task())
    await wait_until(lambda: system.ledger.ended() == {task_id: SUCCEEDED})
    listed = await instance.ring.ListShards(ring_pb.ListShardsRequest())
    (item,) = listed.shards
    assert (item.address, item.primary_address) == (watched.address, watched.servers[0].address)


async def test_a_killed_primary_is_replaced_and_nothing_is_lost(
    system: Cluster, watched: WatchedShard
) -> None:
    first, second = await system.start(lease_ttl=60), await system.start(lease_ttl=60)
    worker = await system.worker(first).connect(credit=20)
    dispatcher = system.dispatcher(second)
    running = await dispatcher.many(20)
    tokens = await worker.next_task(20)
    waiting = await dispatcher.many(20)
    before, epoch = watched.primary(), shard_of(first).epoch
    begun = epochs_begun()
    before.kill()
    after = await failed_over(watched, before)
    await at(first, after, epoch)
    await at(second, after, epoch)
    assert epochs_begun() == begun + 1
    assert shard_of(first).epoch == shard_of(second).epoch
    # Whatever the replica had, the ledger decides: what runs goes on, what waited is dispatched anew.
    await compare_asked(dispatcher)
    assert not worker.lost
    assert await states(second, *running, *waiting) == [PRESENT] * 20 + [MISSING] * 20
    repeats = (dispatcher.item(task_id=task_id, repeat=True) for task_id in (*running, *waiting))
    assert await dispatcher.send(*repeats) == {}
    worker.auto_finish = True
    await worker.finish(*tokens)
    await worker.credit(20)
    await wait_until(lambda: set(system.ledger.ended()) == {*running, *waiting})
    assert len(worker.assigned) == 40
    # The former primary comes back as a replica, and changes nothing.
    before.start()
    await wait_until(lambda: is_replica(before), "a replica", WITHIN)
    assert (shard_of(first).server, shard_of(first).state) == (after.address, ShardState.OPEN)


async def test_a_failover_by_hand_is_followed_at_once(system: Cluster, watched: WatchedShard) -> None:
    instance = await system.start()
    before, epoch = watched.primary(), shard_of(instance).epoch
    assert ask(watched.sentinels[0], "SENTINEL", "FAILOVER", PRIMARY) == "OK"
    after = await failed_over(watched, before)
    await at(instance, after, epoch)
    task_id = await system.dispatcher(instance).one()
    assert await states(instance, task_id) == [PRESENT]


async def test_a_primary_that_hangs_is_left_and_not_believed_when_it_wakes(
    system: Cluster, watched: WatchedShard
) -> None:
    instance = await system.start()
    before, epoch = watched.primary(), shard_of(instance).epoch
    assert before._process
    before._process.send_signal(signal.SIGSTOP)
    try:
        after = await failed_over(watched, before)
        await at(instance, after, epoch)
        epoch = shard_of(instance).epoch
        task_id = await system.dispatcher(instance).one()
    finally:
        before._process.send_signal(signal.SIGCONT)
    await wait_until(lambda: is_replica(before), "a replica", WITHIN)
    assert (shard_of(instance).server, shard_of(instance).epoch) == (after.address, epoch)
    assert await states(instance, task_id) == [PRESENT]


async def test_work_goes_on_without_sentinels(system: Cluster, watched: WatchedShard) -> None:
    instance = await system.start()
    for sentinel in watched.sentinels:
        sentinel.kill()
    shard = shard_of(instance)
    worker = await system.worker(instance).connect(credit=20)
    worker.auto_finish = True
    dispatcher = system.dispatcher(instance)
    ids = await dispatcher.many(10)
    keeper = instance.execution.shards._keepers["shard-1"]
    assert keeper._primary
    keeper._primary._ask_again = 0.0  # type: ignore[attr-defined]
    assert not await keeper._primary.moved()
    ids += await dispatcher.many(10)
    await wait_until(lambda: set(system.ledger.ended()) == set(ids))
    assert shard.state is ShardState.OPEN
    # Whoever is new cannot know where the primary is.
    with pytest.raises(ShardUnavailable, match="no Sentinel says where main is"):
        await open_primary(watched.address, "new", NOBODY)


async def test_a_replica_that_joins_changes_nothing(database: str, tmp_path: Path) -> None:
    ports = [free_port(), free_port()]
    primary, replica = Member(tmp_path / "a", ports[0]), Member(tmp_path / "b", ports[1], ports[0])
    try:
        primary.start()
        primary.wait_ready()
        async with cluster(database, {"shard-1": primary.address}) as system:
            instance = await system.start()
            shard, epoch = shard_of(instance), shard_of(instance).epoch
            task_id = await system.dispatcher(instance).one()
            history = shard_history(primary)
            replica.start()
            await wait_until(replica.ready, "a replica", WITHIN)
            assert shard_history(primary) != history
            keeper = instance.execution.shards._keepers["shard-1"]
            await keeper.run_once()
            assert (shard.state, shard.epoch) == (ShardState.OPEN, epoch)
            assert await states(instance, task_id) == [PRESENT]
    finally:
        replica.stop()
        primary.stop()


def shard_history(server: Member) -> str:
    lines = ask(server, "INFO", "replication").splitlines()
    return str(next(line for line in lines if line.startswith("master_replid:")))


async def test_a_replica_is_no_shard(database: str, watched: WatchedShard) -> None:
    async with cluster(database, {"shard-1": watched.servers[0].address}) as system:
        instance = await system.start()
        assert ask(watched.sentinels[0], "SENTINEL", "FAILOVER", PRIMARY) == "OK"
        keeper = instance.execution.shards._keepers["shard-1"]
        await wait_until(lambda: "is a replica; the ring needs the primary" in keeper._complaint, "", WITHIN)
        assert not shard_of(instance).usable


@pytest.mark.parametrize(
    ("name", "reason"), [("other", "no Sentinel says where other is: .*No such"), ("main/x", "must end with")]
)
async def test_a_primary_that_nobody_knows_is_said_to_be_so(
    watched: WatchedShard, name: str, reason: str
) -> None:
    address = watched.address.rpartition("/")[0] + f"/{name}"
    with pytest.raises((ShardUnavailable, ValueError), match=reason):
        await open_primary(address, "somebody", NOBODY)


async def test_sentinels_and_shards_may_have_passwords_of_their_own(watched: WatchedShard) -> None:
    for sentinel in watched.sentinels:
        assert ask(sentinel, "ACL", "SETUSER", "default", "resetpass", ">theirs") == "OK"
    assert ask(watched.servers[0], "CONFIG", "SET", "requirepass", "ours") == "OK"
    with pytest.raises(ShardUnavailable, match=r"no Sentinel says where main is: .* refuses"):
        await open_primary(watched.address, "test", Passwords("ours", None))
    with pytest.raises(ShardUnavailable, match="refuses"):
        await open_primary(watched.address, "test", Passwords("wrong", "theirs"))
    connection = await open_primary(watched.address, "test", Passwords("ours", "theirs"))
    try:
        assert await connection.call("PING") == b"PONG"
    finally:
        connection.close()


class ScriptedSentinel:
    """Says of the primary what a test wants it to say."""

    def __init__(self) -> None:
        self.port = 0
        self.epoch = "1"
        self.primary = 1
        self.talks = True
        self.conversations: list[asyncio.Task[None]] = []

    @property
    def server(self) -> str:
        return f"127.0.0.1:{self.port}"

    def called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.conversations.append(asyncio.create_task(self._converse(reader, writer)))

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands = hiredis.Reader()
        while data := await reader.read(1 << 16):
            commands.feed(data)
            while (command := commands.gets()) is not False:
                if self.talks:
                    writer.write(self.answer(command[0]))
        writer.close()
        await writer.wait_closed()

    def answer(self, command: bytes) -> bytes:
        if command == b"SUBSCRIBE":
            return b""
        words = {"ip": "127.0.0.1", "port": str(self.primary), "config-epoch": self.epoch}
        about = [word for pair in words.items() for word in pair]
        lines = [f"%{len(words)}", *(f"${len(word)}\r\n{word}" for word in about)]
        return "".join(f"{line}\r\n" for line in lines).encode()


@asynccontextmanager
async def scripted(count: int) -> AsyncIterator[list[ScriptedSentinel]]:
    sentinels = [ScriptedSentinel() for _ in range(count)]
    servers = []
    try:
        for sentinel in sentinels:
            servers.append(await asyncio.start_server(sentinel.called, "127.0.0.1", 0))
            sentinel.port = servers[-1].sockets[0].getsockname()[1]
        yield sentinels
    finally:
        for server in servers:
            server.close()
        # Whoever called has gone by now.
        await asyncio.gather(*(task for sentinel in sentinels for task in sentinel.conversations))


async def test_the_latest_word_of_sentinels_counts() -> None:
    async with scripted(3) as sentinels:
        address = f"sentinel://{','.join(sentinel.server for sentinel in sentinels)}/main"
        primary = primary_of(address, "test", NOBODY)
        try:
            assert await primary.find() == Server("127.0.0.1", 1)
            # One of them has heard of a failover before the others.
            sentinels[2].epoch, sentinels[2].primary = "2", 2
            assert await primary.find() == Server("127.0.0.1", 2)
            # What one says that was cut off is not believed, while the others are silent.
            sentinels[1].talks = sentinels[2].talks = False
            with pytest.raises(ShardUnavailable, match="only of an earlier primary"):
                await primary.find()
            # Most of them are: they were set up anew.
            sentinels[1].talks = True
            assert await primary.find() == Server("127.0.0.1", 1)
        finally:
            primary.close()


async def test_a_sentinel_that_hangs_or_talks_nonsense_holds_nobody_up() -> None:
    async with scripted(3) as sentinels:
        address = f"sentinel://{','.join(sentinel.server for sentinel in sentinels)}/main"
        primary = primary_of(address, "test", NOBODY)
        try:
            sentinels[0].talks = False
            sentinels[1].epoch = "much"
            async with asyncio.timeout(30):
                assert await primary.find() == Server("127.0.0.1", 1)
            sentinels[2].talks = False
            with pytest.raises(ShardUnavailable, match=r"does not answer.*says invalid literal"):
                await primary.find()
        finally:
            primary.close()
