"""Tells the shards how queues are set, and brings the tasks of limited queues together.

When a queue gets limits as a whole, all shards but its home are told that it is away: they lease nothing of
it any more and say how much of it they have leased. The home counts these leases beside its own, and leases
nothing before all have answered; for one that is silent it waits for one lease time. The same goes for the
leases of each limit key; where a shard has very many keys, nothing is leased until there are fewer. While
there are any the figures are read again, often at first and then once a second, and what waits on other
shards is moved home. What gets lost on the way is found by the ledger's comparison.

Queues with limits per key alone live nowhere; their keys are the matter of handover.py.

Every instance does this for itself. Figures of shards that are away only fall, so that they agree in the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from time import monotonic
from typing import Final, NamedTuple

from meshq.contract.limits import MAX_FRAME_ITEMS
from meshq.execution.model import Depth, ShardQueueConfig, Spread
from meshq.execution.queues.configs import Configured, QueueConfigs
from meshq.execution.queues.handover import Handover
from meshq.execution.ring.carrier import Carrier
from meshq.execution.ring.errors import ShardError
from meshq.execution.ring.shard import Shard, ShardState
from meshq.execution.ring.shards import Shards
from meshq.mesh.lifecycle import Repeater
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_LOOK_SECONDS: Final = 1.0
_FIRST_SECONDS: Final = 0.02
_LOOK_AGAIN_AT_ALL: Final = 10
"""After so many looks all limited queues are looked at, whether anything is known to be amiss or not."""
_MOST_KEYS: Final = 1_000
"""Of more keys on one shard that is away their leases are not counted one by one."""
_MOVED_AT_ONCE: Final = 500
_MOVES_AT_ONCE: Final = 20


class Queues:
    """Takes the settings of queues.

    Args:
        configs: Keep them.
        homes: Tell the shards.
    """

    def __init__(self, configs: QueueConfigs, homes: Homes) -> None:
        self._configs = configs
        self._homes = homes

    async def configure(self, configured: Sequence[Configured]) -> bool:
        """Keep settings and tell the shards; says whether they are kept and all shards know."""
        changed = await self._configs.take(configured)
        # Also what is known already: another call may be telling it just now, or a shard was silent then.
        told = await self._homes.tell(changed, [item.config.scope for item in configured])
        return await self._configs.store_waiting() and told


class _Elsewhere(NamedTuple):
    """What other shards than its home have leased of a queue, and of each key; None for very many keys."""

    home: str | None
    leased: int = 0
    keys: dict[str, int] | None = None

    def and_not_less_than(self, known: _Elsewhere) -> _Elsewhere:
        """The higher of the figures."""
        leased = max(self.leased, known.leased)
        if self.keys is None or known.keys is None:
            return _Elsewhere(self.home, leased)
        names = {*self.keys, *known.keys}
        return _Elsewhere(
            self.home,
            leased,
            {name: max(self.keys.get(name, 0), known.keys.get(name, 0)) for name in names},
        )


class _Look(NamedTuple):
    """What a look at some queues has shown.

    Attributes:
        wide: Those of the queues that have limits as a whole.
        depths: What each shard has of these; None where it does not answer.
        silent: The shards that do not know how some of the queues are set.
    """

    wide: list[str]
    depths: dict[str, list[Depth] | None]
    silent: set[str]


class Homes:
    """See the module.

    Args:
        configs: How queues are set.
        shards: Who is told.
        patience: Seconds for which a home waits for silent shards.
        handover: Looks after the limits of keys.
        carrier: Carries tasks where they belong.
    """

    def __init__(
        self, configs: QueueConfigs, shards: Shards, patience: float, handover: Handover, carrier: Carrier
    ) -> None:
        self._configs = configs
        self._shards = shards
        self._patience = patience
        self._handover = handover
        self._carrier = carrier
        self._unsettled: set[str] = set()
        self._told: dict[tuple[str, str], tuple[int, ShardQueueConfig]] = {}
        # Of queues that live at their homes: leases elsewhere, as far as they are known.
        self._foreign: dict[str, _Elsewhere] = {}
        self._silent_since: dict[str, float] = {}
        self._looks = 0
        self._pause = _LOOK_SECONDS
        self._settling = asyncio.Lock()
        self._repeater = Repeater("queues", self.run_once, _LOOK_SECONDS)
        shards.on_change = self._ring_changed

    async def start(self) -> None:
        """Begin to look."""
        await self._repeater.start()

    async def stop(self) -> None:
        """Look no more; return when what was taken off its shard is queued."""
        await self._repeater.stop()
        await self._carrier.stop()

    async def of_shard(self, name: str, *, anew: bool) -> list[ShardQueueConfig]:
        """What a shard has to know before anything is leased from it. Its leases are to be counted anew.

        Args:
            name: The shard.
            anew: Whether it has forgotten what it was told, so that no limit holds of which it is not told
                now. Who has told it before may be gone, and this instance may not have heard of that.

        Raises:
            MeshqError: The database does not answer, and the shard begins anew.
        """
        if anew:
            self._unsettled.update(await self._configs.reload())
        self._look_at_all()
        self._handover.wake()
        return [self._for(config, name) for config in self._configs.all()]

    async def tell(self, changed: Sequence[str], scopes: Sequence[str]) -> bool:
        """Tell the shards how queues (`tenant/queue`) are set now.

        Args:
            changed: Those that are set anew.
            scopes: All that are asked about.

        Returns:
            Whether all shards know.
        """
        self._unsettled.update(changed)
        for scope in changed:
            self._foreign.pop(scope, None)
        told = True
        for at in range(0, len(scopes), MAX_FRAME_ITEMS):
            async with self._settling:
                look = await self._settle(scopes[at : at + MAX_FRAME_ITEMS])
            told = told and not look.silent
        if any(self._configs.is_spread(scope) for scope in changed):
            await self._handover.look()
            self._handover.wake()
        self._pause = _FIRST_SECONDS
        # Whoever asks does not wait until everything has been moved.
        self._repeater.wake()
        return told

    async def run_once(self) -> float:
        """Look at what is not settled; returns the seconds until the next time."""
        await self._configs.store_waiting()
        self._looks += 1
        if self._looks % _LOOK_AGAIN_AT_ALL == 0:
            self._look_at_all(wake=False)
        scopes = sorted(self._unsettled)
        for at in range(0, len(scopes), MAX_FRAME_ITEMS):
            async with self._settling:
                look = await self._settle(scopes[at : at + MAX_FRAME_ITEMS])
            for index, scope in enumerate(look.wide):
                await self._move(scope, index, look.depths)
        self._pause = min(_LOOK_SECONDS, 2 * self._pause) if self._unsettled else _LOOK_SECONDS
        return self._pause

    def _ring_changed(self) -> None:
        self._pause = _FIRST_SECONDS
        self._look_at_all()
        self._handover.wake()

    def _look_at_all(self, *, wake: bool = True) -> None:
        for scope in self._configs.wide():
            self._unsettled.add(scope)
            home = self._home(scope)
            if home is not None:
                self._told.pop((scope, home), None)
        if wake:
            self._repeater.wake()

    # -- telling ---------------------------------------------------------------------------------------

    async def _settle(self, scopes: Sequence[str]) -> _Look:
        """Tell the shards what they do not know of some queues, and look at what they have of them."""
        configs = [config for scope in scopes if (config := self._configs.get(scope)) is not None]
        shards = self._shards.all()
        silent = set(
            await asyncio.gather(
                *(self._tell(shard, [c for c in configs if not self._lives_on(c, shard)]) for shard in shards)
            )
        ) - {""}
        wide = [config for config in configs if self._configs.is_wide(config.scope)]
        # What was leased on a shard that begins anew is not back there before it is open.
        unsure = {shard.name for shard in shards if shard.state is ShardState.RECOVERING}
        depths = await self._described([config.scope for config in wide])
        silent |= {name for name, answer in depths.items() if answer is None}
        for index, config in enumerate(wide):
            await self._count(config, {name: found[index] for name, found in depths.items() if found}, unsure)
        for shard in shards:
            name = await self._tell(shard, [c for c in wide if self._lives_on(c, shard)], silent)
            silent |= {name} - {""}
        self._note_settled(configs, depths, silent, unsure)
        return _Look([config.scope for config in wide], depths, silent)

    async def _count(self, config: ShardQueueConfig, depths: dict[str, Depth], unsure: set[str]) -> None:
        """Note what shards that are away have leased of a queue."""
        home = self._home(config.scope)
        away = {name: depth.leased for name, depth in depths.items() if name != home and depth.leased}
        keys: dict[str, int] | None = {}
        for name in away if config.keyed else ():
            found = await self._running(name, config.scope)
            if found is None or keys is None:
                keys = None
                break
            for key, count in found.items():
                keys[key] = keys.get(key, 0) + count
        counted, known = _Elsewhere(home, sum(away.values()), keys), self._foreign.get(config.scope)
        if not unsure - {home or ""}:
            self._foreign[config.scope] = counted
        elif known is not None and known.home == home:
            self._foreign[config.scope] = counted.and_not_less_than(known)

    async def _running(self, name: str, scope: str) -> dict[str, int] | None:
        """The leases of each key there; None where that is not known, or they are too many."""
        shard = self._shards.get(name)
        try:
            return (await shard.running([scope], _MOST_KEYS))[0] if shard else None
        except ShardError:
            return None

    async def _tell(
        self, shard: Shard, configs: Sequence[ShardQueueConfig], silent: Collection[str] = ()
    ) -> str:
        """Tell a shard what it does not know yet; returns its name when it does not answer."""
        news = []
        for config in configs:
            wanted = self._for(config, shard.name, silent)
            if self._told.get((config.scope, shard.name)) != (shard.epoch, wanted):
                news.append(wanted)
        if not news:
            return ""
        epoch = shard.epoch
        try:
            await shard.configure(news)
        except ShardError as error:
            _log.debug("settings of queues not told", shard=shard.name, reason=str(error))
            return shard.name
        for config in news:
            self._told[config.scope, shard.name] = (epoch, config)
        return ""

    def _for(self, config: ShardQueueConfig, name: str, silent: Collection[str] = ()) -> ShardQueueConfig:
        """How a queue is set for one shard."""
        if self._configs.is_spread(config.scope):
            return config._replace(spread=Spread.UNCOUNTED)
        if not self._configs.is_wide(config.scope):
            return config
        if self._home(config.scope) != name:
            return config._replace(away=True)
        foreign = self._foreign.get(config.scope)
        if foreign is not None and foreign.home != name:
            # What is known is of another ring, and tells nothing of what the last home has leased.
            foreign = None
        if foreign is None or foreign.keys is None:
            return config._replace(hold=True, foreign=foreign.leased if foreign else 0)
        hold = any(self._waited_for(other) for other in silent if other != name)
        keys = tuple(sorted(foreign.keys.items()))
        return config._replace(hold=hold, foreign=foreign.leased, foreign_keys=keys)

    def _lives_on(self, config: ShardQueueConfig, shard: Shard) -> bool:
        return self._configs.is_wide(config.scope) and self._home(config.scope) == shard.name

    def _home(self, scope: str) -> str | None:
        shard = self._shards.owner(scope.encode())
        return shard.name if shard else None

    def _waited_for(self, name: str) -> bool:
        since = self._silent_since.setdefault(name, monotonic())
        return monotonic() - since < self._patience

    # -- moving ----------------------------------------------------------------------------------------

    async def _described(self, scopes: Sequence[str]) -> dict[str, list[Depth] | None]:
        """What each shard has of some queues; None where it does not answer."""

        async def ask(shard: Shard) -> list[Depth] | None:
            try:
                return await shard.describe(scopes)
            except ShardError:
                return None

        if not scopes:
            return {}
        shards = self._shards.all()
        answers = await asyncio.gather(*(ask(shard) for shard in shards))
        return {shard.name: answer for shard, answer in zip(shards, answers, strict=True)}

    async def _move(self, scope: str, index: int, depths: dict[str, list[Depth] | None]) -> None:
        """Bring home what waits elsewhere."""
        home = self._shards.owner(scope.encode())
        if home is None or home.state is not ShardState.OPEN or home.full:
            return
        for name, answer in depths.items():
            shard = self._shards.get(name)
            if shard is None or shard is home or not answer or not answer[index].ready:
                continue
            try:
                await self._move_from(shard, scope)
            except ShardError as error:
                _log.debug("tasks not moved", queue=scope, shard=name, reason=str(error))

    async def _move_from(self, shard: Shard, scope: str) -> None:
        for _ in range(_MOVES_AT_ONCE):
            items = await shard.departures.move_away(scope, _MOVED_AT_ONCE)
            if not items or not await self._carrier.pass_on(shard, items):
                return

    def _note_settled(
        self,
        configs: Sequence[ShardQueueConfig],
        depths: dict[str, list[Depth] | None],
        silent: Collection[str],
        unsure: Collection[str],
    ) -> None:
        for name in list(self._silent_since):
            if name not in silent:
                del self._silent_since[name]
        if silent or unsure:
            return
        wide = [config.scope for config in configs if self._configs.is_wide(config.scope)]
        for config in configs:
            if config.scope not in wide:
                self._unsettled.discard(config.scope)
        for index, scope in enumerate(wide):
            home = self._home(scope)
            elsewhere = [answer[index] for name, answer in depths.items() if answer and name != home]
            if all(depth.ready + depth.delayed + depth.leased == 0 for depth in elsewhere):
                self._unsettled.discard(scope)
