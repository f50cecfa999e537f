"""CommitService: this instance's commits for the other management instances."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

from meshq.contract.limits import MAX_FRAME_ITEMS, STREAM_KEEPALIVE_SECONDS
from meshq.internal.v1 import commit_service_pb2, commit_service_pb2_grpc
from meshq.management.conversion.commits import commit_message, end_message
from meshq.management.conversion.contents import add_content
from meshq.management.model.task import TaskRow
from meshq.management.watch.bus import Over
from meshq.management.watch.commits import CommitListener, CommitLog
from meshq.management.watch.fresh import FreshContent

_PACE_SECONDS: Final = 1.0

Context = grpc.aio.ServicerContext[Any, Any]


class CommitServicer(commit_service_pb2_grpc.CommitServiceServicer):
    """See the protocol."""

    def __init__(self, log: CommitLog, fresh: FreshContent) -> None:
        self._log = log
        self._fresh = fresh

    async def StreamCommits(  # noqa: N802
        self, request_iterator: AsyncIterator[commit_service_pb2.StreamCommitsRequest], context: Context
    ) -> AsyncIterator[commit_service_pb2.StreamCommitsResponse]:
        """Send commits while they are wanted."""
        del context
        listener = self._log.listen()
        reader = asyncio.create_task(_read(request_iterator, listener))
        try:
            # From this frame on the listener misses no change of a queue.
            yield commit_service_pb2.StreamCommitsResponse(sequence=self._log.sequence)
            while not listener.ended:
                # Who watches by a filter wants to know up to when nothing is missing.
                batch = await listener.next(_PACE_SECONDS if listener.creations else STREAM_KEEPALIVE_SECONDS)
                first = batch.sequence - len(batch.changes)
                for start in range(0, len(batch.changes) or 1, MAX_FRAME_ITEMS):
                    changes = batch.changes[start : start + MAX_FRAME_ITEMS]
                    yield commit_service_pb2.StreamCommitsResponse(
                        commits=[self._commit(row) for row in changes if isinstance(row, TaskRow)],
                        ends=[self._end(end) for end in changes if isinstance(end, Over)],
                        sequence=first + start + len(changes),
                        changed_queues=[] if start else ["/".join(key) for key in batch.changed_queues],
                    )
        finally:
            self._log.leave(listener)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    def _commit(self, row: TaskRow) -> commit_service_pb2.Commit:
        commit = commit_message(row)
        add_content(commit, self._fresh.get((row.task_id, row.attempt)) if row.ended else None)
        return commit

    def _end(self, over: Over) -> commit_service_pb2.CommittedEnd:
        end = end_message(over)
        add_content(end, self._fresh.get((over.task_id, over.attempt)))
        return end


async def _read(
    requests: AsyncIterator[commit_service_pb2.StreamCommitsRequest], listener: CommitListener
) -> None:
    try:
        async for request in requests:
            listener.interest(interested=request.interested, creations=request.creations)
    finally:
        listener.end()
