"""The shards of the current ring, each with the keeper that looks after it.

A shard that is out of the ring for a while has none: nobody asks it anything, and whatever was leased from it
is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from typing import Final

from meshq.execution.ring.doorbell import Doorbell, Due
from meshq.execution.ring.hashring import Ring, RingShard
from meshq.execution.ring.keeper import Keeper, Surroundings
from meshq.execution.ring.primary import Passwords
from meshq.execution.ring.shard import Shard
from meshq.mesh.lifecycle import cancelled
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_NONE: Final = Passwords()
_PREPARE_SECONDS: Final = 3.0


async def _at_once() -> None:
    """There is nobody to be asked for a later ring."""


class Shards:
    """See the module.

    Args:
        instance_id: This instance.
        doorbell: Gets the shards' news.
        passwords: Of the servers, if they want any.

    Attributes:
        ring: The ring as last loaded.
        on_due: Told when a delayed task will be due on a shard.
        on_outdated: Told when a shard knows a later ring.
        catch_up: Waits until it is used here.
        on_change: Told when shards came or went.
    """

    def __init__(self, instance_id: str, doorbell: Doorbell, passwords: Passwords = _NONE) -> None:
        self.ring = Ring(0, ())
        self.on_due: Due = lambda _name, _ms: None
        self.on_outdated: Callable[[], None] = lambda: None
        self.catch_up: Callable[[], Awaitable[None]] = _at_once
        self.on_change: Callable[[], None] = lambda: None
        self._changing = asyncio.Lock()
        self._instance_id = instance_id
        self._doorbell = doorbell
        self._passwords = passwords
        self._keepers: dict[str, Keeper] = {}
        self._around: Surroundings | None = None
        self._changes: set[asyncio.Task[None]] = set()

    def surround(self, around: Surroundings) -> None:
        """Say what recovering needs; before the first ring."""
        self._around = around

    async def use(self, ring: Ring) -> None:
        """Go over to a version of the ring, wholly even if this is cancelled; an older one is ignored.

        Who asks for a change may go away at any time, and nobody would come back to half of it.
        """
        change = asyncio.create_task(self._go_over(ring), name=f"ring {ring.version}")
        self._changes.add(change)
        change.add_done_callback(self._changes.discard)
        await asyncio.shield(change)

    async def _go_over(self, ring: Ring) -> None:
        async with self._changing:
            if ring.version > self.ring.version:
                await self._use(ring)

    async def _use(self, ring: Ring) -> None:
        wanted = [member for member in ring.shards if not member.out]
        await self._prepare(ring, [member for member in wanted if member.name not in self._keepers])
        self.ring = ring
        left = self._keepers.keys() - {member.name for member in wanted}
        for name in left:
            await self._let_go(name)
        for member in wanted:
            await self._keep(member, ring.version)
        _log.info("ring in use", version=ring.version, shards=[member.name for member in wanted])
        self._lose(ring, left)
        self.on_change()

    async def start(self) -> None:
        """Nothing begins before the first ring."""

    async def stop(self) -> None:
        """Let go of all shards."""
        for change in list(self._changes):
            await cancelled(change)
        for name in list(self._keepers):
            await self._let_go(name)

    def get(self, name: str) -> Shard | None:
        """The shard of that name, if the ring has it and it is not out."""
        keeper = self._keepers.get(name)
        return keeper.shard if keeper else None

    def all(self) -> list[Shard]:
        """All shards that are not out, by name."""
        return [self._keepers[name].shard for name in sorted(self._keepers)]

    def usable(self) -> list[Shard]:
        """The shards that answer, by name."""
        return [shard for shard in self.all() if shard.usable]

    def owner(self, routing_key: bytes) -> Shard | None:
        """The shard that takes new tasks with this key; None when the ring is empty."""
        name = self.ring.owner(routing_key)
        return self.get(name) if name else None

    async def _prepare(self, ring: Ring, added: Sequence[RingShard]) -> None:
        """Connect to new shards before they get their part, so that nothing has to wait for them."""
        ring.build()
        for member in added:
            await self._keep(member, ring.version)
            self._keepers[member.name].added = self.ring.version > 0
        if added and self.ring.version:
            attached = [self._keepers[member.name].shard.attached.wait() for member in added]
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.gather(*attached), _PREPARE_SECONDS)

    async def _keep(self, member: RingShard, version: int) -> None:
        keeper = self._keepers.get(member.name)
        if keeper is not None and keeper.shard.member.address != member.address:
            await self._let_go(member.name)
            keeper = None
        if keeper is None:
            keeper = self._new_keeper(member)
            self._keepers[member.name] = keeper
            keeper.shard.ring_version = version
            await keeper.start()
        keeper.shard.member = member
        keeper.shard.ring_version = version

    def _new_keeper(self, member: RingShard) -> Keeper:
        assert self._around is not None
        shard = Shard(member, self._instance_id, self._doorbell)
        shard.on_due = self.on_due
        shard.on_outdated = self.on_outdated
        shard.catch_up = self.catch_up
        return Keeper(shard, self._instance_id, self._doorbell, self._around, self._passwords)

    def _lose(self, ring: Ring, names: Collection[str]) -> None:
        """Shards have left: what sessions hold there is lost, and what waited is to be found missing."""
        if self._around is None:
            return
        for name in names:
            for held in self._around.holders.held_on(name):
                self._around.holders.lost(held.session, held.lease)
        # Those that are not even out were empty.
        if any(ring.member(name) for name in names):
            self._around.compare()

    async def _let_go(self, name: str) -> None:
        await self._keepers.pop(name).stop()
