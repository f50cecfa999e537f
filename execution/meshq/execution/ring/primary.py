"""Where the primary of a shard is: always at the same address, or where Sentinels say.

All Sentinels are asked at once, and the latest configuration among their answers counts: one that was cut off
goes on naming the primary of before. Each of them also tells of a failover by itself (`+switch-master`).
Sentinels that do not answer change nothing for a primary that is in use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

from meshq.execution.ring.address import Server, Watched, parse_address
from meshq.execution.ring.connection import Connection, open_connection
from meshq.execution.ring.errors import ShardError, ShardUnavailable

_ALL_SECONDS: Final = 1.0
_MOST_SECONDS: Final = 4.0
"""All are waited for as long as the first says, and that much longer where most are silent by then."""
_ASK_AGAIN_SECONDS: Final = 5.0
_SWITCH: Final = "+switch-master"


class Passwords(NamedTuple):
    """Of the default users.

    Attributes:
        shard: Of the shards.
        sentinel: Of the Sentinels.
    """

    shard: str | None = None
    sentinel: str | None = None


class Primary(Protocol):
    """The primary of one shard."""

    async def find(self) -> Server:
        """Where it is now; raises `ShardUnavailable` when nobody can say."""

    async def moved(self) -> bool:
        """Whether it is now somewhere else than last found; costs nothing most of the time."""

    def close(self) -> None:
        """Let go of whoever is asked."""


class _Fixed:
    """A server that stays where it is."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def find(self) -> Server:
        return self._server

    async def moved(self) -> bool:
        return False

    def close(self) -> None:
        """There is nobody."""


class _Answer(NamedTuple):
    """What a Sentinel says; later configurations have higher epochs."""

    epoch: int
    server: Server


class _Followed:
    """A primary that Sentinels watch over."""

    def __init__(
        self, watched: Watched, client: str, password: str | None, on_switch: Callable[[], None]
    ) -> None:
        self._watched = watched
        self._client = client
        self._password = password
        self._on_switch = on_switch
        self._links: dict[Server, Connection] = {}
        self._found = _Answer(-1, Server("", 0))
        self._ask_again = 0.0

    async def find(self) -> Server:
        self._found = await self._latest()
        self._ask_again = asyncio.get_running_loop().time() + _ASK_AGAIN_SECONDS
        return self._found.server

    async def moved(self) -> bool:
        now = asyncio.get_running_loop().time()
        if now < self._ask_again:
            return False
        self._ask_again = now + _ASK_AGAIN_SECONDS
        try:
            return (await self._latest()).server != self._found.server
        except ShardUnavailable:
            return False

    def close(self) -> None:
        for sentinel in list(self._links):
            self._drop(sentinel)

    async def _latest(self) -> _Answer:
        asked = await self._ask_all()
        heard = [answer for answer in asked if isinstance(answer, _Answer)]
        name = self._watched.name
        if not heard:
            complaints = "; ".join(str(answer) for answer in asked)
            raise ShardUnavailable(f"no Sentinel says where {name} is: {complaints}")
        latest = max(heard, key=lambda answer: answer.epoch)
        if latest.epoch < self._found.epoch and len(heard) * 2 <= len(asked):
            raise ShardUnavailable(f"the Sentinels that answer know only of an earlier primary of {name}")
        return latest

    async def _ask_all(self) -> list[_Answer | str]:
        """What each Sentinel says, or why it says nothing."""
        sentinels = self._watched.sentinels
        asking = [asyncio.ensure_future(self._ask(sentinel)) for sentinel in sentinels]
        answers: list[_Answer | str] = []
        try:
            for seconds in (_ALL_SECONDS, _MOST_SECONDS):
                await asyncio.wait(asking, timeout=seconds)
                answers = [
                    task.result() if task.done() else f"{sentinel} does not answer"
                    for sentinel, task in zip(sentinels, asking, strict=True)
                ]
                if sum(isinstance(answer, _Answer) for answer in answers) * 2 > len(answers):
                    break
        finally:
            for task in asking:
                task.cancel()
        return answers

    async def _ask(self, sentinel: Server) -> _Answer | str:
        try:
            link = await self._link(sentinel)
            return _answer(await link.call("SENTINEL", "MASTER", self._watched.name))
        except asyncio.CancelledError:
            self._drop(sentinel)
            raise
        except ShardUnavailable as error:
            return str(error)
        except (ShardError, KeyError, ValueError) as error:
            return f"{sentinel} says {error}"

    async def _link(self, sentinel: Server) -> Connection:
        known = self._links.get(sentinel)
        if known is not None and not known.closed:
            return known
        link = await open_connection(str(sentinel), self._client, self._password)
        self._links[sentinel] = link
        link.on_push = self._heard
        link.send("SUBSCRIBE", _SWITCH)
        return link

    def _drop(self, sentinel: Server) -> None:
        link = self._links.pop(sentinel, None)
        if link is not None:
            link.close()

    def _heard(self, push: list[Any]) -> None:
        # Message: name, old host, old port, new host, new port.
        if push[0] == b"message" and push[2].split(b" ", 1)[0] == self._watched.name.encode():
            self._ask_again = 0.0
            self._on_switch()


def primary_of(
    address: str, client: str, passwords: Passwords, on_switch: Callable[[], None] = lambda: None
) -> Primary:
    """The primary of a shard with this address.

    Args:
        address: See `address`.
        client: Shown in CLIENT LIST of Sentinels.
        passwords: Of those who are asked.
        on_switch: Called when there may be another primary.

    Raises:
        ValueError: It is no address.
    """
    parsed = parse_address(address)
    if isinstance(parsed, Server):
        return _Fixed(parsed)
    return _Followed(parsed, client, passwords.sentinel, on_switch)


async def open_primary(address: str, client: str, passwords: Passwords) -> Connection:
    """Connect once to whichever server is the primary now.

    Raises:
        ShardUnavailable: Nobody knows where it is, or it cannot be reached.
        ValueError: It is no address.
    """
    primary = primary_of(address, client, passwords)
    try:
        return await open_connection(str(await primary.find()), client, passwords.shard)
    finally:
        primary.close()


def _answer(reply: dict[bytes, bytes]) -> _Answer:
    host, port, epoch = (reply[field].decode() for field in (b"ip", b"port", b"config-epoch"))
    return _Answer(int(epoch), Server(host, int(port)))
