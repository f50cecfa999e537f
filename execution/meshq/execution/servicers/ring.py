"""`RingService`: the shards, for people."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import grpc

from meshq.execution.conversion.ring import checked_name, checked_shard, checked_update
from meshq.execution.model import Depth
from meshq.execution.ring.changes import RingChanges
from meshq.execution.ring.errors import ShardError
from meshq.execution.ring.hashring import RingShard
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
        changes: Changes the ring.
    """

    def __init__(self, shards: Shards, changes: RingChanges) -> None:
        self._shards = shards
        self._changes = changes

    async def ListShards(  # noqa: N802
        self,
        request: pb.ListShardsRequest,  # noqa: ARG002
        context: Context,  # noqa: ARG002
    ) -> pb.ListShardsResponse:
        """Return the shards with their state and load."""
        ring = self._shards.ring
        shares = ring.shares()
        shards = await asyncio.gather(*(self._described(member, shares) for member in ring.shards))
        return pb.ListShardsResponse(ring_version=ring.version, shards=shards)

    async def AddShard(self, request: pb.AddShardRequest, context: Context) -> pb.Shard:  # noqa: N802, ARG002
        """Take a server into the ring."""
        return await self._shown(await self._changes.add(checked_shard(request.shard)))

    async def UpdateShard(  # noqa: N802
        self,
        request: pb.UpdateShardRequest,
        context: Context,  # noqa: ARG002
    ) -> pb.Shard:
        """Change a shard's address or weight."""
        return await self._shown(await self._changes.update(*checked_update(request)))

    async def DrainShard(  # noqa: N802
        self,
        request: pb.DrainShardRequest,
        context: Context,  # noqa: ARG002
    ) -> pb.Shard:
        """Let a shard take no more tasks."""
        return await self._shown(await self._changes.drain(checked_name(request.shard, "shard")))

    async def ActivateShard(  # noqa: N802
        self,
        request: pb.ActivateShardRequest,
        context: Context,  # noqa: ARG002
    ) -> pb.Shard:
        """Let a shard take tasks again."""
        return await self._shown(await self._changes.activate(checked_name(request.shard, "shard")))

    async def RemoveShard(  # noqa: N802
        self,
        request: pb.RemoveShardRequest,
        context: Context,  # noqa: ARG002
    ) -> pb.Shard:
        """Take a shard out of the ring."""
        name = checked_name(request.shard, "shard")
        return _shard(await self._changes.remove(name, force=request.force))

    async def _shown(self, member: RingShard) -> pb.Shard:
        return await self._described(member, self._shards.ring.shares())

    async def _described(self, member: RingShard, shares: dict[str, float]) -> pb.Shard:
        message = _shard(member)
        message.share = shares.get(member.name, 0.0)
        shard = self._shards.get(member.name)
        if shard is not None:
            _add_load(message, shard)
            held = await _held(shard)
            message.state = _state(shard) if held else pb.SHARD_STATE_UNREACHABLE
            if held:
                message.ready, message.delayed, message.leased = held.ready, held.delayed, held.leased
                message.tasks_to_move = held.ready + held.delayed if member.draining else 0
        return message


def _shard(member: RingShard) -> pb.Shard:
    """A shard as far as the ring knows it."""
    state = pb.SHARD_STATE_OUT if member.out else pb.SHARD_STATE_ACTIVE
    if member.draining and not member.out:
        state = pb.SHARD_STATE_DRAINING
    return pb.Shard(shard=member.name, address=member.address, weight=member.weight, state=state)


def _add_load(message: pb.Shard, shard: Shard) -> None:
    message.epoch = shard.epoch
    message.primary_address = shard.server
    message.keys = shard.load.keys
    message.used_memory_bytes = shard.load.used_memory
    message.max_memory_bytes = shard.load.max_memory
    message.operations_per_second = shard.load.operations


async def _held(shard: Shard) -> Depth | None:
    try:
        return await shard.totals()
    except ShardError:
        return None


def _state(shard: Shard) -> pb.ShardState.ValueType:
    if not shard.usable:
        return pb.SHARD_STATE_UNREACHABLE
    if shard.state is not ShardState.OPEN:
        return pb.SHARD_STATE_RECOVERING
    return pb.SHARD_STATE_DRAINING if shard.member.draining else pb.SHARD_STATE_ACTIVE
