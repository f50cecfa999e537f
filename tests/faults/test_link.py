"""The link itself: what goes through, and what does not."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
from faults import loss
from faults.link import CUT, HALF_OPEN, SILENT, Link, Trouble, Way

SOON = 30.0
A_WHILE = 0.3
"""What has not come by then does not come."""

needs_loss = pytest.mark.skipif(not loss.AVAILABLE, reason="packets can be lost on Linux only")


class Caller:
    """A connection to the echoing server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @property
    def port(self) -> int:
        """Its own port."""
        return int(self.writer.get_extra_info("sockname")[1])

    async def echo(self, text: bytes) -> bytes:
        """Send something and return what comes back."""
        self.writer.write(text)
        return await asyncio.wait_for(self.reader.readexactly(len(text)), SOON)

    async def hears_nothing(self) -> None:
        """Nothing comes, not even an end."""
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(self.reader.read(1), A_WHILE)


Call = Callable[[Link], Awaitable[Caller]]


@pytest.fixture
async def echo() -> AsyncIterator[str]:
    """The address of a server that sends back what it gets."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    yield f"{host}:{port}"
    server.close()


@pytest.fixture
async def link(echo: str) -> AsyncIterator[Link]:
    """A link to that server."""
    async with Link("echo", echo) as link:
        yield link


@pytest.fixture
async def call() -> AsyncIterator[Call]:
    """Connects to a link; the connections are closed at the end."""
    callers: list[Caller] = []

    async def connect(link: Link) -> Caller:
        host, _, port = link.address.rpartition(":")
        caller = Caller(*await asyncio.wait_for(asyncio.open_connection(host, int(port)), SOON))
        callers.append(caller)
        return caller

    yield connect
    for caller in callers:
        caller.writer.close()


async def test_bytes_and_the_end_of_a_stream_go_through(link: Link, call: Call) -> None:
    caller = await call(link)
    assert await caller.echo(b"hello") == b"hello"
    many = b"x" * 1_000_000
    assert await caller.echo(many) == many
    caller.writer.write_eof()
    assert await asyncio.wait_for(caller.reader.read(), SOON) == b""


async def test_a_cut_resets_connections_and_new_ones(link: Link, call: Call) -> None:
    caller = await call(link)
    await caller.echo(b"hello")
    link.impose(CUT)
    with pytest.raises(ConnectionError):
        await asyncio.wait_for(caller.reader.read(), SOON)
    again = await call(link)
    with pytest.raises(ConnectionError):
        await asyncio.wait_for(again.reader.read(), SOON)
    link.heal()
    assert await (await call(link)).echo(b"back") == b"back"


@needs_loss
async def test_half_open_loses_everything_and_resets_nothing(link: Link, call: Call) -> None:
    caller = await call(link)
    await caller.echo(b"hello")
    link.impose(HALF_OPEN)
    caller.writer.write(b"lost")
    await caller.hears_nothing()
    host, _, port = link.address.rpartition(":")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.open_connection(host, int(port)), A_WHILE)
    link.heal()
    assert await asyncio.wait_for(caller.reader.readexactly(4), SOON) == b"lost"  # TCP sends it again


@needs_loss
async def test_packets_may_be_lost_in_one_direction_only(link: Link, call: Call) -> None:
    caller = await call(link)
    await caller.echo(b"hello")
    link.impose(Trouble(lost=Way.BACK))
    caller.writer.write(b"heard")
    await caller.hears_nothing()
    link.heal()
    assert await asyncio.wait_for(caller.reader.readexactly(5), SOON) == b"heard"


async def test_a_silent_link_takes_connections_and_passes_nothing_on(link: Link, call: Call) -> None:
    link.impose(SILENT)
    caller = await call(link)
    caller.writer.write(b"later")
    await caller.hears_nothing()
    link.heal()
    assert await asyncio.wait_for(caller.reader.readexactly(5), SOON) == b"later"


async def test_bytes_are_late_on_a_slow_link_and_do_not_wait_for_each_other(link: Link, call: Call) -> None:
    caller = await call(link)
    link.impose(Trouble(latency=0.2))
    begin = time.monotonic()
    caller.writer.write(b"a")
    await asyncio.sleep(0.1)
    caller.writer.write(b"b")
    await asyncio.wait_for(caller.reader.readexactly(2), SOON)
    assert time.monotonic() - begin >= 0.5


async def test_bandwidth_is_bounded(link: Link, call: Call) -> None:
    caller = await call(link)
    link.impose(Trouble(bandwidth=1_000_000))
    begin = time.monotonic()
    await caller.echo(b"x" * 300_000)
    assert time.monotonic() - begin >= 0.3


async def test_trouble_may_concern_one_caller_only(echo: str, call: Call) -> None:
    names: dict[int, str] = {}
    async with Link("echo", echo, lambda port: names.get(port, "")) as link:
        one, other = await call(link), await call(link)
        names = {one.port: "one", other.port: "other"}
        await one.echo(b"hello")
        link.impose(replace(CUT, callers={"one"}))
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(one.reader.read(), SOON)
        assert await other.echo(b"hello") == b"hello"


async def test_a_link_without_a_server_resets(link: Link, call: Call) -> None:
    link.target = "127.0.0.1:1"
    caller = await call(link)
    with pytest.raises(ConnectionError):
        await asyncio.wait_for(caller.reader.read(), SOON)
