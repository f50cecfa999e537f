"""`RingService`: the shards, for people."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import grpc

from meshq.execution.ring.errors import ShardError
from meshq.execution.ring.shard import Shard, ShardState
from meshq.execution.ring.shards import Shards
from meshq.v1 import ring_service_pb2 as pb
from meshq.v1.ring_service_pb2_grpc import RingServiceServicer

NAME: Final = "meshq.v1.RingService"

Context = grpc.aio.ServicerContext[Any, Any]


class RingServicer(RingServiceServicer):
    """See the module.

    Args:
        shards: The shards.
    """

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    async def ListShards(  # noqa: N802
        self,
        request: pb.ListShardsRequest,  # noqa: ARG002
        context: Context,  # noqa: ARG002
    ) -> pb.ListShardsResponse:
        """Return the shards with their state and load."""
        ring = self._shards.ring
        shares = ring.shares()
        shards = await asyncio.gather(*(_described(shard, shares) for shard in self._shards.all()))
        return pb.ListShardsResponse(ring_version=ring.version, shards=shards)


async def _described(shard: Shard, shares: dict[str, float]) -> pb.Shard:
    message = pb.Shard(
        shard=shard.name,
        address=shard.member.address,
        weight=shard.member.weight,
        share=shares.get(shard.name, 0.0),
        epoch=shard.epoch,
        used_memory_bytes=shard.used_memory,
        state=_state(shard),
    )
    try:
        depth = await shard.totals()
        message.ready, message.delayed, message.leased = depth.ready, depth.delayed, depth.leased
    except ShardError:
        message.state = pb.SHARD_STATE_UNREACHABLE
    return message


def _state(shard: Shard) -> pb.ShardState.ValueType:
    if not shard.usable:
        return pb.SHARD_STATE_UNREACHABLE
    if shard.state is not ShardState.OPEN:
        return pb.SHARD_STATE_RECOVERING
    return pb.SHARD_STATE_DRAINING if shard.member.draining else pb.SHARD_STATE_ACTIVE
