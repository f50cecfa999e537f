"""Bulk creation without asyncio: frames go out through a queue that gRPC reads in a thread of its own."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import grpc

from meshq.client.ingest import Ingest
from meshq.client.models import TaskSpec
from meshq.contract.errors import Unavailable
from meshq.contract.status import from_rpc_error
from meshq.v1.task_service_pb2 import IngestTasksRequest, IngestTasksResponse

Outgoing: TypeAlias = "queue.SimpleQueue[IngestTasksRequest | None]"


def exchange(
    open_stream: Callable[[Iterator[IngestTasksRequest]], Any], ingest: Ingest, source: Iterator[TaskSpec]
) -> Iterator[IngestTasksResponse]:
    """Send over one stream what is unanswered and what is new, and yield the answers."""
    outgoing: Outgoing = queue.SimpleQueue()
    for frame in ingest.unanswered:
        outgoing.put(frame.request)
    call = open_stream(iter(outgoing.get, None))
    try:
        while _fill(ingest, source, outgoing):
            answer = next(call, None)
            if answer is None:
                raise Unavailable("the stream ended before every frame was answered")
            yield answer
    except grpc.RpcError as error:
        raise from_rpc_error(error) from None
    finally:
        outgoing.put(None)
        call.cancel()


def _fill(ingest: Ingest, source: Iterator[TaskSpec], outgoing: Outgoing) -> bool:
    """Bring frames under way until the window is full; False when all was answered."""
    while not ingest.full:
        spec = next(source, None)
        if spec is None:
            ingest.end()
            break
        ingest.add(spec)
        while (frame := ingest.take_full()) is not None:
            outgoing.put(frame.request)
    while (frame := ingest.take()) is not None:
        outgoing.put(frame.request)
    return not ingest.finished
