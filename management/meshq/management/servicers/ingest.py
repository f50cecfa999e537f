"""Streams of frames: they are stored side by side, and answered in their order.

But for frames with ordering keys: a place in a chain goes to whoever commits first, so each of them waits
until the one before is stored. Where that fails, none of the later ones is stored either, and all are sent
again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Final, Protocol, TypeVar

from meshq.contract.errors import Reason, Unavailable
from meshq.management.create import Accepted, Creator
from meshq.management.model.claims import ClaimKind
from meshq.management.servicers.requests import Admission, Frame, frame, results, submit
from meshq.v1 import task_service_pb2

_UNDER_WAY: Final = 8
"""Frames of one stream that wait for storage at a time; beyond that the stream is not read."""

_Pending = tuple[Frame, Awaitable[Accepted | None]]
Request_contra = TypeVar("Request_contra", contravariant=True)
Request = TypeVar("Request")


class Intake(Protocol[Request_contra]):
    """What one kind of stream does with its frames."""

    def check(self, request: Request_contra) -> Frame:
        """Check a frame, each task for itself.

        Raises:
            InvalidRequest: The frame as a whole breaks a rule.
        """

    async def admit(self, checked: Frame) -> None:
        """Wait until the frame may be stored, and prepare for that."""


class _Ingest:
    """Frames whose tasks nobody waits for."""

    def __init__(self, creator: Creator, admission: Admission) -> None:
        self._creator = creator
        self._admission = admission

    def check(self, request: task_service_pb2.IngestTasksRequest) -> Frame:
        return frame(ClaimKind.INGEST, request.tasks, request.ByteSize(), request.request_id, self._admission)

    async def admit(self, checked: Frame) -> None:
        del checked
        await self._creator.room()


async def ingest(
    creator: Creator,
    admission: Admission,
    requests: AsyncIterator[task_service_pb2.IngestTasksRequest],
    stopping: asyncio.Event,
) -> AsyncIterator[task_service_pb2.IngestTasksResponse]:
    """Accept frames; yields one answer for each.

    Args:
        creator: Stores them.
        admission: What their queues are set to.
        requests: The frames.
        stopping: Set when the instance stops: what was read is answered, and the rest goes elsewhere.

    Raises:
        MeshqError: A frame as a whole was refused; the frames before it are answered first.
    """
    number = 0
    async for checked, accepted in stored(creator, _Ingest(creator, admission), requests, stopping):
        yield task_service_pb2.IngestTasksResponse(frame=number, results=results(checked, accepted))
        number += 1


async def stored(
    creator: Creator, intake: Intake[Request], requests: AsyncIterator[Request], stopping: asyncio.Event
) -> AsyncIterator[tuple[Frame, Accepted | None]]:
    """Store frames; yields what became of each, in their order.

    Raises:
        MeshqError: See `ingest`.
    """
    pending: asyncio.Queue[_Pending | Exception | None] = asyncio.Queue(_UNDER_WAY)
    reader = asyncio.create_task(_read(creator, intake, requests, pending))
    guard = asyncio.create_task(_stop(stopping, reader, pending))
    try:
        while (item := await pending.get()) is not None:
            if isinstance(item, Exception):
                raise item
            checked, answer = item
            yield checked, await answer
    finally:
        reader.cancel()
        guard.cancel()
        await asyncio.gather(reader, guard, return_exceptions=True)


async def _read(
    creator: Creator,
    intake: Intake[Request],
    requests: AsyncIterator[Request],
    pending: asyncio.Queue[_Pending | Exception | None],
) -> None:
    end: Exception | None = None
    before: Awaitable[Accepted | None] | None = None
    try:
        async for request in requests:
            checked = intake.check(request)
            ordered = checked.submission.ordered
            if ordered and before is not None:
                # Shielded: what was read is answered, also when the reading is ended meanwhile.
                await asyncio.shield(before)
            await intake.admit(checked)
            answer = submit(creator, checked)
            if ordered:
                before = answer
            await pending.put((checked, answer))
    except Exception as error:  # noqa: BLE001
        # Whatever it is, it is raised where the frames are answered, behind those that came before.
        end = error
    await pending.put(end)


async def _stop(
    stopping: asyncio.Event, reader: asyncio.Task[None], pending: asyncio.Queue[_Pending | Exception | None]
) -> None:
    await stopping.wait()
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    await pending.put(Unavailable("This instance stops; send again.", Reason.DRAINING, retry_delay=0.1))
