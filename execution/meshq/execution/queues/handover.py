"""Keeps the limits of keys while the ring changes: each key is served by one shard at a time.

Of a queue with limits per key that is spread over the shards, a shard serves the keys whose slots it has (see
`ring.slots`). With each version of the ring

1. all shards are told their slots. A shard goes on with those that it keeps, and from then on leases nothing
   of slots that it has lost, and nothing yet of those that it has got: tasks of such keys are parked;
2. all are asked what they still lease of keys that they do not serve any more. These figures only fall;
3. each shard is told what others lease of its keys, counts that as its own, and then serves all its slots;
4. what waits where its key is not served is moved, and the figures are read again until all are 0;
5. then the shard is settled, and looks at slots no more.

A shard does not do 3 before all others have answered. One that was never heard of is waited for during one
lease time; of one that was, the last figures count. The same happens when a queue gets limits per key for the
first time, only that shards begin with none of its keys. Every instance does all of this for itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from time import monotonic
from typing import Final, NamedTuple, TypeVar

from meshq.contract.errors import MeshqError
from meshq.contract.limits import MAX_FRAME_ITEMS
from meshq.execution.model import ShardQueueConfig, Spread
from meshq.execution.queues.configs import QueueConfigs
from meshq.execution.queues.strays import Strays
from meshq.execution.ring import slots
from meshq.execution.ring.errors import ShardError
from meshq.execution.ring.hashring import Ring
from meshq.execution.ring.shard import Shard, ShardState
from meshq.execution.ring.shards import Shards
from meshq.execution.ring.slot_calls import Standing
from meshq.mesh.lifecycle import Repeater
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_CALM_SECONDS: Final = 10.0
_SETTLING_SECONDS: Final = 1.0
_WAITING_SECONDS: Final = 0.25
_FIRST_SECONDS: Final = 0.02
_ANSWER_SECONDS: Final = 1.0
_WORK_SECONDS: Final = 10.0
_TELL_AGAIN_LOOKS: Final = 10
_MOST_KEYS: Final = 10_000
"""A shard to which more keys come that run elsewhere has to wait until there are fewer."""
_START: Final = b"0"

T = TypeVar("T")


class _Strays(NamedTuple):
    """What a shard leases of keys that it does not serve, by queue and key.

    Attributes:
        since: The shard's epoch, and its changes when all keys were looked at.
    """

    since: tuple[int, int]
    leases: dict[str, dict[str, int]]

    @property
    def any(self) -> bool:
        """Whether there are any such leases."""
        return any(self.leases.values())


class Handover:
    """See the module.

    Args:
        configs: How queues are set.
        shards: All shards.
        strays: Moves what waits.
        patience: Seconds for which silent shards are waited for.
    """

    def __init__(self, configs: QueueConfigs, shards: Shards, strays: Strays, patience: float) -> None:
        self._configs = configs
        self._shards = shards
        self._moves = strays
        self._patience = patience
        self._ring = Ring(0, ())
        self._maps: dict[str, bytes] = {}
        self._owned: dict[str, int] = {}
        self._strays: dict[str, _Strays] = {}
        self._told: dict[tuple[str, str], tuple[int, ShardQueueConfig]] = {}
        self._silent_since: dict[str, float] = {}
        self._looks = 0
        self._looking = asyncio.Lock()
        self._repeater = Repeater("limit keys", self.run_once, _SETTLING_SECONDS)

    async def start(self) -> None:
        """Begin to look."""
        await self._repeater.start()

    async def stop(self) -> None:
        """Look no more; return when what was taken off its shard is queued."""
        await self._repeater.stop()
        await self._moves.stop()

    def wake(self) -> None:
        """Something has changed: the ring, a shard or the settings of a queue."""
        self._looks = 0
        self._repeater.wake()

    async def run_once(self) -> float:
        """Look how things stand, and move some of what waits; returns the seconds until the next time."""
        standings = await self.look()
        if all(standing is not None and standing.settled for standing in standings.values()):
            return _CALM_SECONDS
        more = await asyncio.gather(*(self._move(name, standing) for name, standing in standings.items()))
        if any(more):
            return 0.0
        waiting = any(standing is None or not standing.confirmed for standing in standings.values())
        most = _WAITING_SECONDS if waiting else _SETTLING_SECONDS
        return min(most, _FIRST_SECONDS * 2.0 ** min(self._looks, 10))

    async def look(self) -> dict[str, Standing | None]:
        """Tell all shards what they have to know of slots; returns how each stands, None if it is silent."""
        async with self._looking:
            self._looks += 1
            ring = self._shards.ring
            if ring.version != self._ring.version:
                self._begin(ring)
            # Some may be on their way into the ring, or out of it, and have no slots.
            shards = [shard for shard in self._shards.all() if shard.name in self._maps]
            standings = dict(
                zip(
                    (shard.name for shard in shards),
                    await self._each(shards, self._own, _ANSWER_SECONDS),
                    strict=True,
                )
            )
            if not all(standing is not None and standing.settled for standing in standings.values()):
                await self._hand_over(shards, standings)
            return standings

    def _begin(self, ring: Ring) -> None:
        self._maps = slots.maps(ring)
        self._ring = ring
        self._owned.clear()
        self._strays.clear()
        self._told.clear()
        self._silent_since.clear()
        self._looks = 0

    async def _own(self, shard: Shard) -> Standing:
        told = self._owned.get(shard.name) == shard.epoch
        standing = await shard.slots.own(b"" if told else self._maps[shard.name])
        if standing.known:
            self._owned[shard.name] = shard.epoch
        else:
            self._owned.pop(shard.name, None)
        return standing

    # -- figures ---------------------------------------------------------------------------------------

    async def _hand_over(self, shards: Sequence[Shard], standings: dict[str, Standing | None]) -> None:
        configs = [config for config in self._configs.all() if self._configs.is_spread(config.scope)]

        async def read(shard: Shard) -> bool:
            standing = standings[shard.name]
            return standing is not None and await self._read(shard, standing, configs)

        known = await self._each(shards, read, _WORK_SECONDS)
        scopes = {config.scope for config in configs}
        silent = {
            shard.name
            for shard, is_known in zip(shards, known, strict=True)
            if not is_known and not self._was_heard_of(shard.name, scopes)
        }
        self._silent_since = {name: self._silent_since.get(name, monotonic()) for name in silent}
        if any(monotonic() - since < self._patience for since in self._silent_since.values()):
            return
        if self._looks % _TELL_AGAIN_LOOKS == 0:
            self._told.clear()

        async def confirm(shard: Shard) -> None:
            standing = standings[shard.name]
            if standing is not None and standing.known and await self._tell(shard, configs):
                await self._confirm(shard, standings, configs)

        await self._each(shards, confirm, _WORK_SECONDS)

    def _was_heard_of(self, name: str, scopes: AbstractSet[str]) -> bool:
        """Whether it is known what a shard leased a while ago: that has not become more."""
        strays = self._strays.get(name)
        return strays is not None and strays.leases.keys() >= scopes

    async def _read(self, shard: Shard, standing: Standing, configs: Sequence[ShardQueueConfig]) -> bool:
        """Read what a shard leases of keys that it does not serve; says whether that is known now."""
        if shard.state is not ShardState.OPEN:
            # What it leased may not be back there yet.
            return False
        since = (shard.epoch, standing.changes)
        known = self._strays.get(shard.name)
        leases: dict[str, dict[str, int]] = {}
        for config in configs:
            before = known.leases.get(config.scope) if known is not None and known.since == since else None
            found = before if before == {} else await self._leased(shard, config, before)
            if found is None:
                return False
            leases[config.scope] = found
        self._strays[shard.name] = _Strays(since, leases)
        return True

    async def _leased(
        self, shard: Shard, config: ShardQueueConfig, known: dict[str, int] | None
    ) -> dict[str, int] | None:
        if known is not None:
            return await self._leased_of(shard, config.scope, list(known))
        found = await self._leased_of_all(shard, config.scope)
        if found is None:
            # It has not heard of the limits yet.
            await shard.configure([config._replace(spread=Spread.UNCOUNTED)])
            found = await self._leased_of_all(shard, config.scope)
        return found

    async def _leased_of(self, shard: Shard, scope: str, keys: list[str]) -> dict[str, int] | None:
        found: dict[str, int] = {}
        for at in range(0, len(keys), MAX_FRAME_ITEMS):
            answer = await shard.slots.stray_leases(scope, _START, keys[at : at + MAX_FRAME_ITEMS])
            if answer is None:
                return None
            found |= answer[1]
        return found

    async def _leased_of_all(self, shard: Shard, scope: str) -> dict[str, int] | None:
        found: dict[str, int] = {}
        cursor = _START
        while (answer := await shard.slots.stray_leases(scope, cursor)) is not None:
            cursor = answer[0]
            found |= answer[1]
            if cursor == _START:
                return found
        return None

    # -- telling ---------------------------------------------------------------------------------------

    async def _tell(self, shard: Shard, configs: Sequence[ShardQueueConfig]) -> bool:
        """Tell a shard what others lease of its keys; says whether it knows."""
        news = []
        for config in configs:
            elsewhere = self._elsewhere(config.scope, shard.name)
            if len(elsewhere) > _MOST_KEYS:
                return False
            wanted = config._replace(
                spread=Spread.COUNTED, foreign=sum(elsewhere.values()), foreign_keys=tuple(elsewhere.items())
            )
            if self._told.get((config.scope, shard.name)) != (shard.epoch, wanted):
                news.append(wanted)
        epoch = shard.epoch
        for wanted in news:
            await shard.configure([wanted])
            self._told[wanted.scope, shard.name] = (epoch, wanted)
        return True

    def _elsewhere(self, scope: str, name: str) -> dict[str, int]:
        found: dict[str, int] = {}
        for other, strays in self._strays.items():
            if other == name:
                continue
            for key, count in strays.leases.get(scope, {}).items():
                if self._ring.owner(slots.routing_key(scope, key)) == name:
                    found[key] = found.get(key, 0) + count
        return found

    async def _confirm(
        self, shard: Shard, standings: dict[str, Standing | None], configs: Sequence[ShardQueueConfig]
    ) -> None:
        standing = standings[shard.name]
        if standing is None or standing.confirmed:
            return
        if await shard.slots.confirm(self._maps[shard.name], [config.scope for config in configs]):
            standings[shard.name] = standing._replace(confirmed=True)
            return
        try:
            # It may know queues that this instance has not heard of.
            await self._configs.reload()
        except MeshqError as error:
            _log.debug("settings of queues not read", reason=error.message)

    # -- moving ----------------------------------------------------------------------------------------

    async def _move(self, name: str, standing: Standing | None) -> bool:
        """Move some of what waits on a shard; says whether there is more to be done at once."""
        shard, strays = self._shards.get(name), self._strays.get(name)
        if shard is None or shard.state is not ShardState.OPEN or strays is None:
            return False
        if standing is None or standing.settled or not standing.confirmed:
            return False
        if shard.member.draining or strays.since != (shard.epoch, standing.changes):
            return False
        scopes = [config.scope for config in self._configs.all() if self._configs.is_spread(config.scope)]
        try:
            return await self._moves.move(shard, standing, scopes, leased=strays.any)
        except ShardError as error:
            _log.debug("tasks not moved", shard=name, reason=str(error))
            return False

    async def _each(
        self, shards: Sequence[Shard], act: Callable[[Shard], Awaitable[T]], seconds: float
    ) -> list[T | None]:
        """What comes of something for each shard; None where it does not answer."""

        async def one(shard: Shard) -> T | None:
            try:
                async with asyncio.timeout(seconds):
                    return await act(shard)
            except (ShardError, TimeoutError) as error:
                _log.debug("shard not asked about limit keys", shard=shard.name, reason=str(error))
                return None

        return list(await asyncio.gather(*(one(shard) for shard in shards)))
