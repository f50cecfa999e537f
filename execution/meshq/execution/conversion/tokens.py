"""Lease tokens: encoded `meshq.internal.v1.LeaseToken`, opaque to workers."""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError

from meshq.contract.errors import InvalidRequest
from meshq.contract.ids import ID_BYTES
from meshq.contract.limits import NAME_PATTERN
from meshq.execution.model import Lease, unknown_lane
from meshq.execution.ring.extras import are_extras
from meshq.internal.v1.session_frames_pb2 import LeaseToken

_RULE: Final = "must be a lease token as it was assigned"
_MAX_TOKEN_BYTES: Final = 1_024


def encode_token(lease: Lease, lane: str = "", extras: bytes = b"") -> bytes:
    """The token of a lease.

    Args:
        lease: The lease.
        lane: The task's lane.
        extras: What the shard says of the task. If there is any, the token carries it, and the queue: whoever
            makes the lease anew, on a shard that has lost it, has to know both.
    """
    token = LeaseToken(
        task_id=lease.task_id,
        attempt=lease.attempt,
        epoch=lease.epoch,
        lease=lease.number,
        shard=lease.shard,
        tenant=lease.tenant,
        lease_time_ms=lease.leased_ms,
    )
    if extras:
        token.queue = lane.split("/", 2)[1]
        token.extras = extras
    return token.SerializeToString(deterministic=True)


def carried(token: bytes) -> tuple[str, bytes]:
    """Lane and extras as far as a token says them that was decoded before."""
    found = LeaseToken.FromString(token)
    return unknown_lane(found.tenant, found.queue or "-"), found.extras


def decode_token(token: bytes, field: str) -> Lease:
    """The lease that a token names.

    Args:
        token: What a worker has sent.
        field: The path of the field in the request, for the error.

    Raises:
        InvalidRequest: It is no token of ours.
    """
    if len(token) > _MAX_TOKEN_BYTES:
        raise _refusal(token, field)
    try:
        found = LeaseToken.FromString(token)
    except DecodeError:
        raise _refusal(token, field) from None
    lease = Lease(
        found.task_id, found.attempt, found.epoch, found.lease, found.shard, found.tenant, found.lease_time_ms
    )
    if not _plausible(lease) or not _carries_well(found):
        raise _refusal(token, field)
    return lease


def _refusal(token: bytes, field: str) -> InvalidRequest:
    # Who has a token has the lease, so no more is told of it than its length.
    return InvalidRequest.field(field, f"{_RULE}, not {len(token)} other bytes")


def _carries_well(token: LeaseToken) -> bool:
    if not token.extras:
        return not token.queue
    return NAME_PATTERN.fullmatch(token.queue) is not None and are_extras(token.extras)


def _plausible(lease: Lease) -> bool:
    return (
        len(lease.task_id) == ID_BYTES
        and lease.attempt > 0
        and lease.epoch > 0
        and lease.number > 0
        and lease.leased_ms > 0
        and NAME_PATTERN.fullmatch(lease.shard) is not None
        and NAME_PATTERN.fullmatch(lease.tenant) is not None
    )
