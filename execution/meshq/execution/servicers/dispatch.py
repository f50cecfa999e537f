"""`DispatchService`: tasks come in, are compared, withdrawn and counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final

import grpc

from meshq.contract.errors import InvalidRequest, MeshqError
from meshq.contract.limits import MAX_REASON_LENGTH, NAME_PATTERN, NAME_RULE, STREAM_KEEPALIVE_SECONDS
from meshq.execution.conversion.dispatch import check_ids, dispatch_response, queue_items, withdraw_mode
from meshq.execution.conversion.queues import configured_queues
from meshq.execution.conversion.requests import check_count
from meshq.execution.inquiries import Inquiries, Withdrawal
from meshq.execution.intake import Intake
from meshq.execution.queues.homes import Queues
from meshq.execution.servicers.explanations import Explanations
from meshq.execution.servicers.workers import Workers
from meshq.internal.v1 import dispatch_service_pb2 as pb
from meshq.internal.v1.dispatch_service_pb2_grpc import DispatchServiceServicer

NAME: Final = "meshq.internal.v1.DispatchService"
_SIGN_OF_LIFE_SECONDS: Final = STREAM_KEEPALIVE_SECONDS * 0.75
_FRAMES_AT_ONCE: Final = 8

Context = grpc.aio.ServicerContext[Any, Any]


class DispatchStream:
    """One stream from a management instance: answers that are ready to be sent."""

    def __init__(self) -> None:
        self.answers: asyncio.Queue[pb.DispatchResponse | MeshqError | None] = asyncio.Queue()
        self.slots = asyncio.Semaphore(_FRAMES_AT_ONCE)
        self.frames: set[asyncio.Task[None]] = set()

    async def next(self) -> pb.DispatchResponse | MeshqError | None:
        """The next answer, or a sign of life."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_SIGN_OF_LIFE_SECONDS):
                return await self.answers.get()
        return pb.DispatchResponse()


class DispatchServicer(DispatchServiceServicer):
    """See the module.

    Args:
        intake: Queues attempts.
        inquiries: Asks the shards.
        workers: Lists the workers of this instance.
        queues: Takes the settings of queues.
        explanations: Say what tasks wait for.
    """

    def __init__(
        self,
        intake: Intake,
        inquiries: Inquiries,
        workers: Workers,
        *,
        queues: Queues,
        explanations: Explanations,
    ) -> None:
        self._intake = intake
        self._inquiries = inquiries
        self._workers = workers
        self._queues = queues
        self._explanations = explanations
        self._streams: set[DispatchStream] = set()

    def ask_for_comparison(self) -> None:
        """A shard was recovered: management is to compare what is open."""
        for stream in self._streams:
            stream.answers.put_nowait(pb.DispatchResponse(compare=True))

    def drain(self) -> None:
        """End all streams once what was read is answered."""
        for stream in self._streams:
            stream.answers.put_nowait(None)

    async def Dispatch(  # noqa: N802
        self,
        request_iterator: AsyncIterator[pb.DispatchRequest],
        context: Context,  # noqa: ARG002
    ) -> AsyncIterator[pb.DispatchResponse]:
        """Take frames, several at a time, and answer each when its items are queued."""
        stream = DispatchStream()
        self._streams.add(stream)
        reader = asyncio.create_task(self._read(stream, request_iterator), name="dispatch")
        try:
            while (answer := await stream.next()) is not None:
                if isinstance(answer, MeshqError):
                    raise answer
                yield answer
        finally:
            self._streams.discard(stream)
            reader.cancel()
            for frame in stream.frames:
                frame.cancel()
            await asyncio.gather(reader, *stream.frames, return_exceptions=True)

    async def _read(self, stream: DispatchStream, requests: AsyncIterator[pb.DispatchRequest]) -> None:
        try:
            async for request in requests:
                await stream.slots.acquire()
                frame = asyncio.create_task(self._take(stream, request))
                stream.frames.add(frame)
                frame.add_done_callback(stream.frames.discard)
            await asyncio.gather(*stream.frames)
        except MeshqError as error:
            stream.answers.put_nowait(error)
        except (grpc.RpcError, grpc.aio.BaseError, asyncio.InvalidStateError):
            pass
        finally:
            stream.answers.put_nowait(None)

    async def _take(self, stream: DispatchStream, request: pb.DispatchRequest) -> None:
        try:
            rejected = await self._intake.take(queue_items(request))
            stream.answers.put_nowait(dispatch_response(request.frame, rejected))
        except MeshqError as error:
            stream.answers.put_nowait(error)
        finally:
            stream.slots.release()

    async def CompareTasks(  # noqa: N802
        self,
        request: pb.CompareTasksRequest,
        context: Context,  # noqa: ARG002
    ) -> pb.CompareTasksResponse:
        """Say what the shards know of attempts."""
        check_ids([item.task_id for item in request.attempts], "attempts")
        states = await self._inquiries.compare([(item.task_id, item.attempt) for item in request.attempts])
        return pb.CompareTasksResponse(states=[pb.ComparedState.ValueType(state) for state in states])

    async def WithdrawTasks(  # noqa: N802
        self,
        request: pb.WithdrawTasksRequest,
        context: Context,  # noqa: ARG002
    ) -> pb.WithdrawTasksResponse:
        """Take tasks off the shards."""
        check_ids([item.task_id for item in request.withdrawals], "withdrawals")
        items = [
            Withdrawal(
                item.task_id,
                item.attempt,
                item.reason[:MAX_REASON_LENGTH],
                withdraw_mode(item),
                item.tenant,
            )
            for item in request.withdrawals
        ]
        states = await self._inquiries.withdraw(items)
        return pb.WithdrawTasksResponse(states=[pb.WithdrawnState.ValueType(state) for state in states])

    async def DescribeQueues(  # noqa: N802
        self,
        request: pb.DescribeQueuesRequest,
        context: Context,  # noqa: ARG002
    ) -> pb.DescribeQueuesResponse:
        """Sum up the figures of queues."""
        check_count(len(request.queues), "queues")
        for index, name in enumerate((request.tenant, *request.queues)):
            if not NAME_PATTERN.fullmatch(name):
                raise InvalidRequest.field(f"queues[{index - 1}]" if index else "tenant", NAME_RULE)
        depths, complete = await self._inquiries.describe(request.tenant, request.queues)
        return pb.DescribeQueuesResponse(
            depths=[
                pb.QueueDepth(
                    queue=queue,
                    ready=depth.ready,
                    delayed=depth.delayed,
                    leased=depth.leased,
                    oldest_ready_time_ms=depth.oldest_ms,
                )
                for queue, depth in zip(request.queues, depths, strict=True)
            ],
            complete=complete,
        )

    async def ConfigureQueues(  # noqa: N802
        self,
        request: pb.ConfigureQueuesRequest,
        context: Context,  # noqa: ARG002
    ) -> pb.ConfigureQueuesResponse:
        """Take the settings of queues."""
        complete = await self._queues.configure(configured_queues(request))
        return pb.ConfigureQueuesResponse(complete=complete)

    async def ExplainTasks(  # noqa: N802
        self,
        request: pb.ExplainTasksRequest,
        context: Context,  # noqa: ARG002
    ) -> pb.ExplainTasksResponse:
        """Say what tasks wait for, or how they get on."""
        check_ids([task.task_id for task in request.tasks], "tasks")
        if request.own_progress:
            return pb.ExplainTasksResponse(explanations=self._explanations.own(request.tasks))
        return pb.ExplainTasksResponse(explanations=await self._explanations.of(request.tasks))

    async def ListSessions(  # noqa: N802
        self,
        request: pb.ListSessionsRequest,
        context: Context,  # noqa: ARG002
    ) -> pb.ListSessionsResponse:
        """List the workers of this instance."""
        workers = self._workers.own()
        if request.tenant:
            workers = [worker for worker in workers if worker.tenant == request.tenant]
        return pb.ListSessionsResponse(workers=workers)
