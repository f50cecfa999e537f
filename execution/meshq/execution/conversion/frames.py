"""Frames to workers, encoded. Specifications pass as bytes and are never parsed here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from meshq.contract.limits import MAX_FRAME_BYTES, MAX_FRAME_ITEMS, SOFT_FRAME_BYTES
from meshq.execution.conversion.times import duration, timestamp
from meshq.internal.v1.session_frames_pb2 import AssignmentsTwin, AssignmentTwin, AssignTwin
from meshq.v1 import worker_service_pb2 as pb

Assignment = tuple[bytes, bytes, int]
"""Specification, lease token, attempt."""


NO_CHECKPOINTS: Final[Mapping[bytes, bytes]] = MappingProxyType({})


def assign_frames(
    assignments: Iterable[Assignment], checkpoints: Mapping[bytes, bytes] = NO_CHECKPOINTS
) -> Iterator[bytes]:
    """The assignments as `Assign` frames, each closed at the soft limit, with checkpoints by token."""
    for part in _parts(assignments, checkpoints):
        twins = [
            AssignmentTwin(task=spec, lease_token=token, attempt=attempt) for spec, token, attempt in part
        ]
        if checkpoints:
            for twin in twins:
                if checkpoint := checkpoints.get(twin.lease_token):
                    twin.checkpoint = checkpoint
        yield AssignTwin(assign=AssignmentsTwin(assignments=twins)).SerializeToString()


def _parts(
    assignments: Iterable[Assignment], checkpoints: Mapping[bytes, bytes]
) -> Iterator[list[Assignment]]:
    part: list[Assignment] = []
    size = 0
    for assignment in assignments:
        length = len(assignment[0])
        if checkpoints:
            length += len(checkpoints.get(assignment[1], b""))
        if part and (size + length > SOFT_FRAME_BYTES or len(part) == MAX_FRAME_ITEMS):
            yield part
            part, size = [], 0
        part.append(assignment)
        size += length
    if part:
        yield part


def polled(assignments: Iterable[tuple[bytes, bytes, int, int, bytes]]) -> bytes:
    """An encoded `PollTasksResponse`: specification, token, attempt, end of the lease in ms, checkpoint."""
    twins = [
        AssignmentTwin(
            task=spec,
            lease_token=token,
            attempt=attempt,
            expire_time=timestamp(ends_ms).SerializeToString(),
            checkpoint=checkpoint or None,
        )
        for spec, token, attempt, ends_ms, checkpoint in assignments
    ]
    return AssignmentsTwin(assignments=twins).SerializeToString()


def welcome_frame(
    session_id: str, instance_id: str, times: tuple[float, float, float], held: Iterable[tuple[bytes, bool]]
) -> bytes:
    """Welcome; `times` are the lease time, the heartbeat interval and the delivery timeout in seconds."""
    lease_ttl, heartbeat, delivery = (duration(seconds) for seconds in times)
    return pb.ConnectResponse(
        welcome=pb.Welcome(
            session_id=session_id,
            instance_id=instance_id,
            lease_ttl=lease_ttl,
            heartbeat_interval=heartbeat,
            delivery_timeout=delivery,
            max_frame_items=MAX_FRAME_ITEMS,
            max_frame_bytes=MAX_FRAME_BYTES,
            held_leases=[pb.HeldLease(lease_token=token, kept=kept) for token, kept in held],
        )
    ).SerializeToString()


def acks_frame(acks: Iterable[tuple[bytes, int]]) -> bytes:
    """ResultsAck of tokens and their statuses."""
    return pb.ConnectResponse(results_ack=pb.ResultsAck(acks=result_acks(acks))).SerializeToString()


def result_acks(acks: Iterable[tuple[bytes, int]]) -> list[pb.ResultAck]:
    """The answers to results."""
    return [
        pb.ResultAck(lease_token=token, status=pb.ResultStatus.ValueType(status)) for token, status in acks
    ]


def cancel_lease(token: bytes, reason: str, grace: float) -> pb.CancelLease:
    """Asks to stop one task."""
    return pb.CancelLease(lease_token=token, reason=reason, grace=duration(grace))


def cancel_frame(token: bytes, reason: str, grace: float) -> bytes:
    """Cancel of one lease."""
    return pb.ConnectResponse(
        cancel=pb.Cancel(leases=[cancel_lease(token, reason, grace)])
    ).SerializeToString()


def lost_frame(tokens: Sequence[bytes]) -> bytes:
    """LeaseLost of some leases."""
    return pb.ConnectResponse(lease_lost=pb.LeaseLost(lease_tokens=tokens)).SerializeToString()


def reconnect_frame(reason: str) -> bytes:
    """Control that asks to open a session elsewhere."""
    control = pb.Control(action=pb.CONTROL_ACTION_RECONNECT, reason=reason)
    return pb.ConnectResponse(control=control).SerializeToString()


PING_FRAME: Final = pb.ConnectResponse(ping=pb.Ping(nonce=1)).SerializeToString()
"""A sign of life; nobody compares the nonce."""
