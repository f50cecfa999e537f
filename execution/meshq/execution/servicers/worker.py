"""`WorkerService`: sessions and polls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from functools import partial
from time import time
from typing import Any, Final

import grpc

from meshq.contract.errors import InvalidRequest, MeshqError, NotFound, PreconditionFailed, Reason
from meshq.contract.limits import MAX_FRAME_BYTES, MAX_FRAME_ITEMS, MAX_REASON_LENGTH
from meshq.execution.attempts.completions import Completions
from meshq.execution.conversion.frames import acks_frame, cancel_lease, polled, result_acks
from meshq.execution.conversion.requests import (
    check_count,
    hello_facts,
    page_size,
    page_token,
    poll_of,
    polling_worker,
)
from meshq.execution.conversion.results import Reported, reported
from meshq.execution.conversion.tokens import decode_token
from meshq.execution.model import Lease, Status
from meshq.execution.servicers.handlers import Handlers
from meshq.execution.servicers.workers import Workers
from meshq.execution.sessions.polls import Polls
from meshq.execution.sessions.receipts import Receipts
from meshq.execution.sessions.session import HeldTask, Session
from meshq.execution.sessions.sessions import Sessions
from meshq.v1 import worker_service_pb2 as pb

NAME: Final = "meshq.v1.WorkerService"
_LAST_RESULTS_SECONDS: Final = 5.0

Context = grpc.aio.ServicerContext[Any, Any]


class WorkerServicer:
    """See the module; registered by `register`, because two methods answer with bytes.

    Args:
        sessions: All sessions.
        polls: All polls.
        receipts: Takes acknowledgements.
        completions: Takes results.
        handlers: Takes progress and output.
        workers: Lists workers over all instances.
    """

    def __init__(
        self,
        sessions: Sessions,
        polls: Polls,
        *,
        receipts: Receipts,
        completions: Completions,
        handlers: Handlers,
        workers: Workers,
    ) -> None:
        self._sessions = sessions
        self._polls = polls
        self._receipts = receipts
        self._completions = completions
        self._handlers = handlers
        self._workers = workers
        self._ends: set[asyncio.Task[None]] = set()
        self._frames: dict[str, Callable[[Session, Any], None]] = {
            "credits": lambda session, credit: session.grant(credit.total),
            "received": self._received,
            "heartbeat": self._heartbeat,
            "results": self._results,
            "output": self._output,
            "pong": lambda _session, _pong: None,
        }

    def register(self, server: grpc.aio.Server) -> None:
        """Add the service to a server. Frames with specifications are answered as they are, encoded."""
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Connect": grpc.stream_stream_rpc_method_handler(
                self.connect, pb.ConnectRequest.FromString, bytes
            ),
            "PollTasks": grpc.unary_unary_rpc_method_handler(
                self.poll_tasks, pb.PollTasksRequest.FromString, bytes
            ),
            "HeartbeatTasks": _unary(self.heartbeat_tasks, pb.HeartbeatTasksRequest),
            "CompleteTasks": _unary(self.complete_tasks, pb.CompleteTasksRequest),
            "ListWorkers": _unary(self.list_workers, pb.ListWorkersRequest),
            "GetWorker": _unary(self.get_worker, pb.GetWorkerRequest),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, methods),))

    # -- sessions --------------------------------------------------------------------------------------

    async def connect(
        self,
        requests: AsyncIterator[pb.ConnectRequest],
        context: Context,  # noqa: ARG002
    ) -> AsyncIterator[bytes]:
        """Serve one session."""
        session = await self._open(requests)
        reader = asyncio.create_task(self._read(session, requests), name="session")
        try:
            async for frame in session.frames():
                yield frame
        finally:
            reader.cancel()
            end = asyncio.create_task(self._end(session, reader), name="end of a session")
            self._ends.add(end)
            end.add_done_callback(self._ends.discard)
            # Who breaks off in the midst of it has the call cancelled once more.
            await asyncio.shield(end)

    async def _end(self, session: Session, reader: asyncio.Task[None]) -> None:
        try:
            with suppress(asyncio.CancelledError):
                await reader
            await self._receipts.flush()
        finally:
            await self._sessions.gone(session)

    async def _open(self, requests: AsyncIterator[pb.ConnectRequest]) -> Session:
        first = await anext(requests, None)
        if first is None or first.WhichOneof("frame") != "hello":
            raise PreconditionFailed("The first frame must be Hello.", Reason.HELLO_EXPECTED)
        facts = hello_facts(first.hello)
        tokens = dict.fromkeys(first.hello.held_leases)
        held = [
            (token, decode_token(token, f"hello.held_leases[{index}]")) for index, token in enumerate(tokens)
        ]
        return await self._sessions.open(facts, held)

    async def _read(self, session: Session, requests: AsyncIterator[pb.ConnectRequest]) -> None:
        """Take the worker's frames until it leaves, however that happens."""
        try:
            async for request in requests:
                session.hear()
                kind = request.WhichOneof("frame")
                if kind == "goodbye":
                    await self._goodbye(session, request.goodbye)
                    break
                if kind is not None:
                    self._handler(kind)(session, getattr(request, kind))
                if session.unheeded:
                    await session.heeded()
        except MeshqError as error:
            session.close(error)
        except (grpc.RpcError, grpc.aio.BaseError, asyncio.InvalidStateError):
            session.close()
        else:
            session.close()

    def _handler(self, kind: str) -> Callable[[Session, Any], None]:
        handler = self._frames.get(kind)
        if handler is None:
            raise PreconditionFailed("Hello came twice.", Reason.HELLO_EXPECTED)
        return handler

    async def _goodbye(self, session: Session, goodbye: pb.Goodbye) -> None:
        """What the worker reported just before it left is recorded before its leases end."""
        if len(goodbye.reason) > MAX_REASON_LENGTH:
            rule = f"must be at most {MAX_REASON_LENGTH} characters, not {len(goodbye.reason)}"
            raise InvalidRequest.field("goodbye.reason", rule)
        session.leaving = True
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_RESULTS_SECONDS):
                await session.recorded()
        await self._receipts.flush()
        await self._sessions.goodbye(session)

    def _received(self, session: Session, received: pb.Received) -> None:
        check_count(len(received.lease_tokens), "received.lease_tokens")
        receipts: list[tuple[bytes, Lease]] = []
        for index, token in enumerate(received.lease_tokens):
            held = session.leases.get(token)
            if held is None:
                # Ended or lost in the meantime; a token that never was one is a broken worker.
                decode_token(token, f"received.lease_tokens[{index}]")
            elif not held.received:
                held.received = True
                receipts.append((token, held.lease))
                self._sessions.note_start(session, token)
        if receipts:
            session.hearken()
            self._receipts.add(session, receipts)

    def _heartbeat(self, session: Session, heartbeat: pb.Heartbeat) -> None:
        self._handlers.progress_of(session, heartbeat.progress, "heartbeat.progress")

    def _output(self, _session: Session, output: pb.Output) -> None:
        self._handlers.output(output.outputs, "output.outputs")

    def _results(self, session: Session, frame: pb.Results) -> None:
        check_count(len(frame.results), "results")
        results = self._reported(frame.results, session.facts.worker_id, session.leases)
        if results:
            session.recording += len(results)
            self._completions.submit(results, partial(_acknowledge, session))

    # -- unary -----------------------------------------------------------------------------------------

    async def poll_tasks(self, request: pb.PollTasksRequest, context: Context) -> bytes:  # noqa: ARG002
        """Lease for a poll."""
        return polled(await self._polls.poll(poll_of(request)))

    async def heartbeat_tasks(
        self,
        request: pb.HeartbeatTasksRequest,
        context: Context,  # noqa: ARG002
    ) -> pb.HeartbeatTasksResponse:
        """Renew polled leases."""
        facts = polling_worker(request.worker_id)
        for field in ("lease_tokens", "progress", "outputs"):
            check_count(len(getattr(request, field)), field)
        leases = self._named(request)
        if not leases:
            raise InvalidRequest.field("lease_tokens", "must have at least one token")
        renewed = await self._polls.renew(facts, leases)
        with_checkpoints = self._handlers.progress(request.progress, "progress", frozenset(renewed.lost))
        self._handlers.output(request.outputs, "outputs")
        if with_checkpoints:
            await self._handlers.keep(with_checkpoints)
        grace = self._sessions.times.cancel_grace
        return pb.HeartbeatTasksResponse(
            cancels=[cancel_lease(token, reason, grace) for token, reason in renewed.cancels],
            lost_lease_tokens=renewed.lost,
        )

    async def complete_tasks(
        self,
        request: pb.CompleteTasksRequest,
        context: Context,  # noqa: ARG002
    ) -> pb.CompleteTasksResponse:
        """Record how polled tasks ended."""
        facts = polling_worker(request.worker_id)
        check_count(len(request.results), "results", least=1)
        if request.ByteSize() > MAX_FRAME_BYTES + MAX_FRAME_ITEMS:
            rule = f"must be at most {MAX_FRAME_BYTES} bytes encoded, not {request.ByteSize()}"
            raise InvalidRequest.field("results", rule)
        results = self._reported(request.results, facts.worker_id)
        statuses = await self._completions.settle(results)
        acks = [(result.token, status) for result, status in zip(results, statuses, strict=True)]
        self._polls.completed(facts, [token for token, status in acks if status != Status.TRY_LATER])
        return pb.CompleteTasksResponse(acks=result_acks(acks))

    async def list_workers(
        self,
        request: pb.ListWorkersRequest,
        context: Context,  # noqa: ARG002
    ) -> pb.ListWorkersResponse:
        """List the workers of all instances."""
        size, after = page_size(request.page_size), page_token(request.page_token)
        workers = [worker for worker in await self._workers.all() if worker.worker_id > after]
        more = len(workers) > size
        return pb.ListWorkersResponse(
            workers=workers[:size], next_page_token=workers[size - 1].worker_id if more else ""
        )

    async def get_worker(self, request: pb.GetWorkerRequest, context: Context) -> pb.Worker:  # noqa: ARG002
        """Find one worker."""
        for worker in await self._workers.all():
            if worker.worker_id == request.worker_id:
                return worker
        raise NotFound(
            f"No worker {request.worker_id[:128]!r} is connected.",
            Reason.WORKER_NOT_FOUND,
            worker_id=request.worker_id[:128],
        )

    # -- parts -----------------------------------------------------------------------------------------

    def _named(self, request: pb.HeartbeatTasksRequest) -> dict[bytes, Lease]:
        """All leases that a heartbeat names, by token."""
        places = [(token, f"lease_tokens[{index}]") for index, token in enumerate(request.lease_tokens)]
        for name in ("progress", "outputs"):
            items = getattr(request, name)
            places += [(item.lease_token, f"{name}[{index}].lease_token") for index, item in enumerate(items)]
        return {token: decode_token(token, field) for token, field in places}

    @staticmethod
    def _reported(
        results: Sequence[pb.TaskResult], worker_id: str, known: dict[bytes, HeldTask] | None = None
    ) -> list[Reported]:
        """What was reported; `known` are the leases of a session."""
        now_ms = int(time() * 1000)
        found = []
        for index, result in enumerate(results):
            held = known.get(result.lease_token) if known else None
            lease = held.lease if held else None
            strict = known is None
            item = reported(result, worker_id, now_ms, f"results[{index}]", strict=strict, lease=lease)
            if item.deferral is not None and held is not None:
                deferral = item.deferral._replace(lane=held.lane, extras=held.extras)
                item = item._replace(deferral=deferral)
            found.append(item)
        return found


def _acknowledge(session: Session, acks: list[tuple[bytes, Status]]) -> None:
    for token, status in acks:
        if status != Status.TRY_LATER:
            session.leases.pop(token, None)
    session.send(acks_frame(acks))
    session.note_recorded(len(acks))


def _unary(method: Any, request: Any) -> grpc.RpcMethodHandler[Any, Any]:
    return grpc.unary_unary_rpc_method_handler(
        method, request.FromString, lambda response: response.SerializeToString()
    )
