"""Keeps the session: one stream after the other, until the handlers say Goodbye."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol, TypeAlias

import grpc
import grpc.aio

from meshq.contract.errors import (
    DeadlineExceeded,
    InvalidRequest,
    MeshqError,
    PreconditionFailed,
    Unavailable,
)
from meshq.contract.limits import MAX_FRAME_ITEMS, STREAM_KEEPALIVE_SECONDS
from meshq.contract.status import from_rpc_error
from meshq.v1 import worker_service_pb2 as pb
from meshq.worker.news import frames
from meshq.worker.session.backoff import Backoff
from meshq.worker.session.leases import Leases
from meshq.worker.session.settings import SessionSettings

CONNECT: Final = "/meshq.v1.WorkerService/Connect"
HELLO_TIMEOUT: Final = 10.0
SILENCE_LIMIT: Final = 2.5 * STREAM_KEEPALIVE_SECONDS
"""The server pings every 20 s; a stream that is silent for so long is broken."""
LEAVE_TIMEOUT: Final = 1.0
"""How long the server has to end a stream that the worker left."""
RECEIVED_DELAY: Final = 0.005
"""How long Received waits for company, or for any other frame to go before. Deliveries have seconds, and
a frame for each small Assign would cost more than the tasks in it."""
TRY_LATER_DELAY: Final = 0.5
FAREWELL_TIMEOUT: Final = 10.0
"""How long Goodbye waits for results to be recorded."""
MAX_WAITING_OUTPUT: Final = 8 << 20
"""Bytes of output that wait for the stream; more is dropped, as nobody keeps output."""

_HEARTBEAT: Final = pb.ConnectRequest(heartbeat=pb.Heartbeat()).SerializeToString()

_Call: TypeAlias = "grpc.aio.StreamStreamCall[bytes, bytes]"


class Handlers(Protocol):
    """The way back to the handlers."""

    def frame(self, body: bytes) -> None:
        """Pass on an encoded ConnectResponse."""

    def notice(self, **notice: Any) -> None:
        """Say something about the session."""


class _LeaveStream(Exception):
    """The server asked to connect again."""


class Keeper:
    """A worker's session over all its streams.

    Args:
        settings: Who the worker is.
        channel: Where sessions are opened.
        handlers: The way back to the handlers.
    """

    def __init__(self, settings: SessionSettings, channel: grpc.aio.Channel, handlers: Handlers) -> None:
        self._settings = settings
        self._handlers = handlers
        self._open: Callable[[], _Call] = channel.stream_stream(CONNECT)
        self._leases = Leases(bytes.fromhex(token) for token in settings.held)
        self._assigned = settings.assigned
        self._assigned_before = settings.assigned
        self._credit = settings.assigned
        self._connected = False
        self._outgoing: deque[bytes] = deque()
        self._received: list[bytes] = []
        self._waiting_output = 0
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()
        self._finish_writing = False
        self._closing: str | None = None
        self._close_by = 0.0
        self._said_goodbye = False
        self._interval = 5.0
        self._take: dict[str | None, Callable[[pb.ConnectResponse, bytes], None]] = {
            "assign": self._on_assign,
            "results_ack": self._on_ack,
            "lease_lost": self._on_lost,
            "ping": self._on_ping,
            "control": self._on_control,
            "cancel": self._pass_on,
        }

    # From the handlers

    def from_handlers(self, body: bytes) -> None:
        """Take an encoded ConnectRequest of the handlers."""
        frame = pb.ConnectRequest.FromString(body)
        kind = frame.WhichOneof("frame")
        if kind == "results":
            self._leases.report(frame.results.results)
            self._send(body)
        elif kind == "credits":
            self._credit = frame.credits.total
            self._send_credit()
        elif kind == "goodbye":
            self.close(frame.goodbye.reason)
        elif kind == "output":
            self._send_output(body)
        elif kind == "heartbeat":
            self._leases.note(frame.heartbeat.progress)
            self._send(body)
        else:
            self._send(body)

    def close(self, reason: str) -> None:
        """End the session once every result is recorded, or after a while."""
        self._closing = reason or "stopping"
        self._close_by = time.monotonic() + FAREWELL_TIMEOUT
        self._changed.set()

    # The life of the session

    async def run(self) -> None:
        """Keep the session until it is closed; a refusal by the server ends it as well."""
        backoff = Backoff()
        while not self._over():
            began = time.monotonic()
            try:
                await self._stream()
            except _LeaveStream:
                continue
            except (InvalidRequest, PreconditionFailed) as error:
                self._handlers.notice(event="refused", error=error.message)
                return
            except MeshqError as error:
                delay = backoff.after(time.monotonic() - began, error.retry_delay)
                self._handlers.notice(event="disconnected", error=error.message, retry_in=round(delay, 3))
                await self._pause(delay)

    def _over(self) -> bool:
        if self._closing is None:
            return False
        return self._said_goodbye or not self._leases.unrecorded or time.monotonic() > self._close_by

    async def _pause(self, delay: float) -> None:
        if self._closing:
            # There are results that are not recorded, and little time.
            await asyncio.sleep(min(delay, TRY_LATER_DELAY))
            return
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), delay)

    async def _stream(self) -> None:
        call = self._open()
        self._finish_writing = False
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._greet(call)
            tasks = [
                asyncio.create_task(part(call))
                for part in (self._write, self._beat, self._leave_when_closing)
            ]
            await self._read(call)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
        except asyncio.InvalidStateError:
            raise Unavailable("the stream ended while it was written to") from None
        finally:
            self._connected = False
            for task in tasks:
                task.cancel()
            call.cancel()

    async def _greet(self, call: _Call) -> None:
        await call.write(self._settings.hello(self._leases.tokens).SerializeToString())
        with _silence_is_an_error(HELLO_TIMEOUT):
            async with asyncio.timeout(HELLO_TIMEOUT):
                body = await call.read()
        if not isinstance(body, bytes):
            raise Unavailable("the server ended the session before it began")
        frame = pb.ConnectResponse.FromString(body)
        if frame.WhichOneof("frame") != "welcome":
            raise Unavailable("the first frame was not Welcome")
        self._on_welcome(frame.welcome)

    async def _read(self, call: _Call) -> None:
        clock = asyncio.get_running_loop().time
        try:
            with _silence_is_an_error(SILENCE_LIMIT):
                async with asyncio.timeout(SILENCE_LIMIT) as limit:
                    while isinstance(body := await call.read(), bytes):
                        limit.reschedule(clock() + SILENCE_LIMIT)
                        self._from_server(body)
        except _LeaveStream:
            await self._leave(call)
            raise
        except asyncio.CancelledError:
            if not self._said_goodbye:
                raise
        if not self._said_goodbye:
            raise Unavailable("the server ended the session")

    async def _leave(self, call: _Call) -> None:
        """Send what waits and read what is still coming, so that little has to be delivered twice."""
        self._finish()
        with contextlib.suppress(grpc.RpcError, TimeoutError):
            async with asyncio.timeout(LEAVE_TIMEOUT):
                while isinstance(body := await call.read(), bytes):
                    with contextlib.suppress(_LeaveStream):
                        self._from_server(body)

    def _finish(self) -> None:
        self._finish_writing = True
        self._wake.set()

    async def _write(self, call: _Call) -> None:
        # What is wrong with a stream is told by reading from it.
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
            while True:
                self._wake.clear()
                while (body := self._next_frame()) is not None:
                    await call.write(body)
                self._waiting_output = 0
                if self._finish_writing:
                    break
                await self._wake.wait()
            self._connected = False
            await call.done_writing()

    def _next_frame(self) -> bytes | None:
        if self._received:
            frame = pb.ConnectRequest(received=pb.Received(lease_tokens=self._received[:MAX_FRAME_ITEMS]))
            del self._received[:MAX_FRAME_ITEMS]
            return frame.SerializeToString()
        return self._outgoing.popleft() if self._outgoing else None

    async def _beat(self, _call: _Call) -> None:
        while True:
            await asyncio.sleep(self._interval)
            self._send(_HEARTBEAT)

    async def _leave_when_closing(self, call: _Call) -> None:
        while not self._closing:
            self._changed.clear()
            await self._changed.wait()
        while self._leases.unrecorded and time.monotonic() < self._close_by:  # noqa: ASYNC110 - seldom
            await asyncio.sleep(0.01)
        goodbye = pb.ConnectRequest(goodbye=pb.Goodbye(reason=self._closing))
        self._send(goodbye.SerializeToString())
        self._said_goodbye = True
        self._finish()
        await asyncio.sleep(LEAVE_TIMEOUT)
        call.cancel()

    # From the server

    def _from_server(self, body: bytes) -> None:
        frame = pb.ConnectResponse.FromString(body)
        take = self._take.get(frame.WhichOneof("frame"))
        if take is not None:  # Frames of a newer protocol are none of this worker's business.
            take(frame, body)

    def _on_welcome(self, welcome: pb.Welcome) -> None:
        lost = self._leases.welcome(welcome.held_leases)
        self._assigned_before = self._assigned
        self._interval = _seconds(welcome.heartbeat_interval) or self._interval
        self._outgoing.clear()
        self._received.clear()
        self._connected = True
        if lost:
            frame = pb.ConnectResponse(lease_lost=pb.LeaseLost(lease_tokens=lost))
            self._handlers.frame(frame.SerializeToString())
        self._handlers.notice(
            event="connected",
            session_id=welcome.session_id,
            instance_id=welcome.instance_id,
            kept=len(self._leases),
            lost=len(lost),
        )
        for heartbeat in frames(self._leases.checkpoints()):
            self._send(pb.ConnectRequest(heartbeat=heartbeat).SerializeToString())
        self._report_again(None)
        self._send_credit()

    def _on_assign(self, frame: pb.ConnectResponse, body: bytes) -> None:
        tokens = [item.lease_token for item in frame.assign.assignments]
        self._assigned += len(tokens)
        self._leases.assign(tokens)
        if not self._received:
            asyncio.get_running_loop().call_later(RECEIVED_DELAY, self._wake.set)
        self._received += tokens
        if self._closing is None:
            self._handlers.frame(body)
        else:
            self._release(tokens)

    def _release(self, tokens: list[bytes]) -> None:
        """Give back what crossed the handlers' Goodbye."""
        reason = pb.Release(reason=self._closing or "")
        self._leases.report(pb.TaskResult(lease_token=token, release=reason) for token in tokens)
        self._report_again(tokens)

    def _on_ack(self, frame: pb.ConnectResponse, _body: bytes) -> None:
        again = self._leases.acknowledge(frame.results_ack.acks)
        if again:
            asyncio.get_running_loop().call_later(TRY_LATER_DELAY, self._report_again, again)

    def _on_lost(self, frame: pb.ConnectResponse, body: bytes) -> None:
        self._leases.lose(frame.lease_lost.lease_tokens)
        self._handlers.frame(body)

    def _on_ping(self, frame: pb.ConnectResponse, _body: bytes) -> None:
        self._send(pb.ConnectRequest(pong=pb.Pong(nonce=frame.ping.nonce)).SerializeToString())

    def _on_control(self, frame: pb.ConnectResponse, body: bytes) -> None:
        if frame.control.action == pb.CONTROL_ACTION_RECONNECT:
            raise _LeaveStream
        if frame.control.action == pb.CONTROL_ACTION_SETTINGS:
            self._interval = _seconds(frame.control.heartbeat_interval) or self._interval
            return
        self._handlers.frame(body)

    def _pass_on(self, _frame: pb.ConnectResponse, body: bytes) -> None:
        self._handlers.frame(body)

    # To the server

    def _send(self, body: bytes) -> None:
        """Send over the open stream; without one it is dropped, and Welcome sees to what matters."""
        if self._connected:
            self._outgoing.append(body)
            self._wake.set()

    def _send_credit(self) -> None:
        total = self._credit - self._assigned_before
        self._send(pb.ConnectRequest(credits=pb.Credits(total=max(total, 0))).SerializeToString())

    def _send_output(self, body: bytes) -> None:
        if self._waiting_output + len(body) <= MAX_WAITING_OUTPUT:
            self._waiting_output += len(body)
            self._send(body)

    def _report_again(self, tokens: list[bytes] | None) -> None:
        for results in self._leases.results(tokens):
            self._send(pb.ConnectRequest(results=results).SerializeToString())


@contextlib.contextmanager
def _silence_is_an_error(seconds: float) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise DeadlineExceeded(f"the server was silent for {seconds:g} s") from None


def _seconds(duration: Any) -> float:
    seconds: float = duration.ToNanoseconds() / 1e9
    return seconds
