"""One connection to a Redis-protocol server, shared by everybody in the process.

Commands are pipelined in the order of the calls, and what the server pushes (RESP3) comes on the same
connection. There is deliberately no reconnecting and no retrying here: a new connection may lead to a server
that has lost everything, so whoever opens one looks at the server's identity first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

import hiredis

from meshq.execution.ring.address import parse_server
from meshq.execution.ring.errors import ShardError, ShardUnavailable, from_reply

_CONNECT_SECONDS: Final = 2.0

Argument = bytes | str | int | float

# Its stub says that commands have one argument.
_pack: Final[Callable[[tuple[Argument, ...]], bytes]] = hiredis.pack_command  # type: ignore[assignment]


class Connection(asyncio.Protocol):
    """See the module; made by `open_connection`.

    Attributes:
        closed: Whether it has ended.
        on_push: Gets what the server pushes.
        on_closed: Called once when it has ended.
    """

    def __init__(self) -> None:
        self.closed = False
        self.on_push: Callable[[list[Any]], None] = lambda _: None
        self.on_closed: Callable[[], None] = lambda: None
        self._reader = hiredis.Reader()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()

    def call(self, *command: Argument) -> asyncio.Future[Any]:
        """Send a command.

        Returns:
            The reply to come; a `ShardError` where the server answers with an error or is gone.
        """
        answer: asyncio.Future[Any] = self._loop.create_future()
        if self.closed or self._transport is None:
            answer.set_exception(ShardUnavailable("the connection is closed"))
            return answer
        self._waiting.append(answer)
        self._transport.write(_pack(command))
        return answer

    def send(self, *command: Argument) -> None:
        """Send a command that is answered by a push, such as SUBSCRIBE."""
        if self._transport is not None and not self.closed:
            self._transport.write(_pack(command))

    def close(self) -> None:
        """End it; whoever waits for a reply gets `ShardUnavailable`."""
        if self._transport is not None:
            self._transport.abort()
        self._end()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of the protocol."""
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Part of the protocol: replies in the order of the commands, pushes in between."""
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                if isinstance(reply, hiredis.PushNotification):
                    self.on_push(reply)
                else:
                    self._answer(reply)
        except hiredis.HiredisError:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Part of the protocol."""
        self._end()

    def _answer(self, reply: Any) -> None:
        answer = self._waiting.popleft()
        if answer.done():
            return
        if isinstance(reply, hiredis.ReplyError):
            answer.set_exception(from_reply(str(reply)))
        else:
            answer.set_result(reply)

    def _end(self) -> None:
        if self.closed:
            return
        self.closed = True
        waiting, self._waiting = self._waiting, deque()
        for answer in waiting:
            if not answer.done():
                answer.set_exception(ShardUnavailable("the connection was lost"))
        self.on_closed()


async def open_connection(address: str, name: str, password: str | None = None) -> Connection:
    """Connect and switch to RESP3.

    Args:
        address: `host:port`.
        name: Shown in CLIENT LIST.
        password: Of the server's default user.

    Raises:
        ShardUnavailable: The server cannot be reached, is still loading, or refuses.
        ValueError: It is no address of a server.
    """
    server = parse_server(address)
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(Connection, server.host, server.port)
    except (OSError, TimeoutError) as error:
        raise ShardUnavailable(
            f"cannot connect to {address}: {str(error) or 'it does not answer'}"
        ) from error
    authentication = ("AUTH", "default", password) if password else ()
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            await connection.call("HELLO", 3, *authentication, "SETNAME", name)
    except (ShardError, TimeoutError) as error:
        connection.close()
        raise ShardUnavailable(f"{address} refuses: {str(error) or 'it does not answer'}") from error
    except BaseException:
        connection.close()
        raise
    return connection
