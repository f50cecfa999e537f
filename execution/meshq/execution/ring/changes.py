"""Changes the ring: each change makes a version from the current one, while nobody else changes it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Protocol

from meshq.contract.errors import Conflict, NotFound, PreconditionFailed, Reason
from meshq.execution.ring.errors import ShardClosed, ShardError
from meshq.execution.ring.hashring import Ring, RingShard
from meshq.execution.ring.servers import Servers
from meshq.execution.ring.shards import Shards
from meshq.mesh.telemetry import logger

_log = logger(__name__)

Members = Sequence[RingShard]


class Store(Protocol):
    """Where the versions are."""

    async def change(self, edit: Callable[[Ring], Awaitable[Members]]) -> Ring:
        """Make a version while nobody else does."""


class Follower(Protocol):
    """Who follows the versions."""

    async def run_once(self) -> None:
        """Load the current version, use it and announce it."""


class RingChanges:
    """See the module. All methods return the shard as the ring has it then, and raise `MeshqError`.

    Args:
        store: The versions.
        shards: The shards in use.
        follower: Is told of each change.
        servers: Looks at those that are to be shards.
    """

    def __init__(self, store: Store, shards: Shards, follower: Follower, servers: Servers) -> None:
        self._store = store
        self._shards = shards
        self._follower = follower
        self._servers = servers

    async def add(self, shard: RingShard) -> RingShard:
        """Take a server into the ring."""

        async def edit(ring: Ring) -> Members:
            known = ring.member(shard.name)
            if known is not None:
                if (known.address, known.weight) != (shard.address, shard.weight):
                    raise Conflict(
                        f"The ring has shard {shard.name} at {known.address} with weight {known.weight}; "
                        "update it instead.",
                        Reason.SHARD_EXISTS,
                        shard=shard.name,
                    )
                return ring.shards
            await self._check(ring, shard, 0)
            return [*ring.shards, shard]

        return await self._change(shard.name, edit)

    async def update(self, name: str, address: str | None, weight: int | None) -> RingShard:
        """Change the address or the weight of a shard; None leaves it as it is."""

        async def edit(ring: Ring) -> Members:
            known = _member(ring, name)
            changed = replace(
                known,
                address=known.address if address is None else address,
                weight=known.weight if weight is None else weight,
            )
            if changed.address != known.address:
                shard = self._shards.get(name)
                await self._check(ring, changed, shard.epoch if shard else 0)
            return _with(ring, changed)

        return await self._change(name, edit)

    async def drain(self, name: str) -> RingShard:
        """Let a shard take no more tasks."""

        async def edit(ring: Ring) -> Members:
            known = _member(ring, name)
            if not any(shard.takes for shard in ring.shards if shard.name != name):
                raise PreconditionFailed(
                    f"No other shard than {name} would take tasks; add or activate one first.",
                    Reason.LAST_SHARD,
                    shard=name,
                )
            return _with(ring, replace(known, draining=True))

        return await self._change(name, edit)

    async def activate(self, name: str) -> RingShard:
        """Let a shard take tasks again."""

        async def edit(ring: Ring) -> Members:
            return _with(ring, replace(_member(ring, name), draining=False))

        return await self._change(name, edit)

    async def remove(self, name: str, *, force: bool) -> RingShard:
        """Take a shard out of the ring that is drained and empty, or with `force` one that is out."""
        removed: list[RingShard] = []

        async def edit(ring: Ring) -> Members:
            known = _member(ring, name)
            if not known.out:
                await self._close(ring, known)
            elif not force:
                raise _not_empty(
                    name, f"Nobody knows what shard {name} holds, as it is out; remove it by force."
                )
            removed[:] = [known]
            return [shard for shard in ring.shards if shard.name != name]

        ring = await self._store.change(edit)
        await self._follower.run_once()
        _log.info("shard removed", shard=name, ring=ring.version)
        return removed[0]

    async def _change(self, name: str, edit: Callable[[Ring], Awaitable[Members]]) -> RingShard:
        ring = await self._store.change(edit)
        await self._follower.run_once()
        return _member(ring, name)

    async def _check(self, ring: Ring, shard: RingShard, epoch: int) -> None:
        """Refuse a server that cannot be this shard; one with data of its own must be of this epoch."""
        other = next((one for one in ring.shards if one.address == shard.address), None)
        if other is not None:
            raise Conflict(
                f"{shard.address} is the address of shard {other.name}.",
                Reason.SHARD_EXISTS,
                shard=other.name,
            )
        try:
            content = await self._servers.look(shard.address)
        except ShardError as error:
            raise _unusable(shard, str(error)) from error
        if content.epoch == 0 and content.keys:
            raise _unusable(shard, "it holds data that is not of meshq; a shard must be a server of its own")
        if content.epoch not in {0, epoch} and not content.closed:
            raise _unusable(shard, "it holds tasks of a shard that was not removed; FLUSHALL empties it")

    async def _close(self, ring: Ring, member: RingShard) -> None:
        if not member.draining:
            raise _not_empty(member.name, f"Shard {member.name} takes tasks; drain it first.")
        await self._shards.use(ring)
        shard = self._shards.get(member.name)
        try:
            held = await shard.close() if shard else None
        except ShardClosed:
            return
        except ShardError as error:
            raise _not_empty(member.name, f"Shard {member.name} does not answer; try again later.") from error
        if held is not None and held.ready + held.delayed + held.leased:
            raise _not_empty(
                member.name,
                f"Shard {member.name} still has {held.ready + held.delayed:,} waiting tasks and "
                f"{held.leased:,} at workers; try again later.",
            )


def _member(ring: Ring, name: str) -> RingShard:
    known = ring.member(name)
    if known is None:
        raise NotFound(f"The ring has no shard {name}.", Reason.SHARD_NOT_FOUND, shard=name)
    return known


def _with(ring: Ring, changed: RingShard) -> list[RingShard]:
    return [changed if shard.name == changed.name else shard for shard in ring.shards]


def _not_empty(name: str, text: str) -> PreconditionFailed:
    return PreconditionFailed(text, Reason.SHARD_NOT_EMPTY, shard=name)


def _unusable(shard: RingShard, why: str) -> PreconditionFailed:
    return PreconditionFailed(
        f"{shard.address} cannot be shard {shard.name}: {why}.", Reason.SHARD_UNUSABLE, shard=shard.name
    )
