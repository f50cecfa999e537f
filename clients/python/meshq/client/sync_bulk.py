"""Streams of tasks without asyncio: frames go out through a queue that gRPC reads in a thread of its own."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from meshq.client.frames import Frames, Outcome, Request, Response
from meshq.client.models import TaskSpec
from meshq.contract.errors import Unavailable
from meshq.contract.status import from_rpc_error


def exchange(
    open_stream: Callable[[Iterator[Request]], Any],
    frames: Frames[Request, Response, Outcome],
    source: Iterator[TaskSpec],
) -> Iterator[Response]:
    """Send over one stream what is unanswered and what is new, and yield the answers."""
    outgoing: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
    for request in frames.restart():
        outgoing.put(request)
    call = open_stream(iter(outgoing.get, None))
    try:
        while _fill(frames, source, outgoing):
            answer = next(call, None)
            if answer is None:
                raise Unavailable("the stream ended before everything was answered")
            yield answer
    except grpc.RpcError as error:
        raise from_rpc_error(error) from None
    finally:
        outgoing.put(None)
        call.cancel()


def _fill(
    frames: Frames[Request, Response, Outcome],
    source: Iterator[TaskSpec],
    outgoing: queue.SimpleQueue[Request | None],
) -> bool:
    """Bring frames under way until the window is full; False when all was answered."""
    while not frames.full:
        spec = next(source, None)
        if spec is None:
            frames.end()
            break
        frames.add(spec)
        while (request := frames.take_full()) is not None:
            outgoing.put(request)
    while (request := frames.take()) is not None:
        outgoing.put(request)
    if frames.all_sent:
        outgoing.put(None)
    return not frames.finished
