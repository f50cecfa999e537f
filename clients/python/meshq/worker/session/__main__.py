"""`python -m meshq.worker.session FD`: keep a session for the process at the other end of a socket."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from typing import Any

import grpc.aio
import uvloop

from meshq.client.channel import CHANNEL_OPTIONS
from meshq.contract.runtime import collect_rarely
from meshq.worker.pipe import HEADER, Kind
from meshq.worker.session.keeper import Keeper
from meshq.worker.session.settings import SessionSettings

READ_LIMIT = 4 << 20


class HandlersEnd:
    """The pipe as this process sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def frame(self, body: bytes) -> None:
        """Pass on a frame. Nothing is waited for: credit bounds what can pile up."""
        self._writer.write(HEADER.pack(Kind.FRAME, len(body)) + body)

    def notice(self, **notice: Any) -> None:
        """Say something about the session."""
        body = json.dumps(notice).encode()
        self._writer.write(HEADER.pack(Kind.NOTICE, len(body)) + body)

    async def receive(self) -> tuple[Kind, bytes] | None:
        """The next message; None when the handlers' process closed the pipe or is gone."""
        try:
            kind, length = HEADER.unpack(await self._reader.readexactly(HEADER.size))
            return Kind(kind), await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def close(self) -> None:
        """Send what is left and close."""
        try:
            await self._writer.drain()
            self._writer.close()
            await self._writer.wait_closed()
        except ConnectionError:
            pass  # Nobody is there to read it.


async def listen(handlers: HandlersEnd, keeper: Keeper) -> None:
    """Hand the handlers' frames to the keeper until their process is gone."""
    while (message := await handlers.receive()) is not None:
        keeper.from_handlers(message[1])
    keeper.close("the worker's process ended")


async def main(end: socket.socket) -> None:
    """Serve one worker."""
    handlers = HandlersEnd(*await asyncio.open_connection(sock=end, limit=READ_LIMIT))
    first = await handlers.receive()
    if first is None:
        return
    settings = SessionSettings.from_notice(json.loads(first[1]))
    async with grpc.aio.insecure_channel(settings.target, options=CHANNEL_OPTIONS) as channel:
        keeper = Keeper(settings, channel, handlers)
        listener = asyncio.create_task(listen(handlers, keeper))
        await keeper.run()
        listener.cancel()
        await handlers.close()


if __name__ == "__main__":
    collect_rarely()
    # Ctrl-C and a service manager reach the whole group; this process ends when its worker is through.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    uvloop.run(main(socket.socket(fileno=int(sys.argv[1]))))
