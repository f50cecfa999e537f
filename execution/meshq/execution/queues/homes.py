"""Tells the shards how queues are set, and brings the tasks of limited queues together.

When a queue gets limits as a whole, all shards but its home are told that it is away: they lease nothing of
it any more and say how much of it they have leased. The home counts these leases beside its own, and leases
nothing before all have answered; for one that is silent it waits for one lease time. Once a second the
figures are read again while there are any, and what waits on other shards is moved home. What gets lost on
the way is found by the ledger's comparison.

Every instance does this for itself. Figures of shards that are away only fall, so that they agree in the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from time import monotonic
from typing import Final, NamedTuple

from meshq.contract.limits import MAX_FRAME_ITEMS
from meshq.execution.model import Depth, ShardQueueConfig
from meshq.execution.queues.configs import Configured, QueueConfigs
from meshq.execution.ring.errors import ShardError
from meshq.execution.ring.shard import Shard, ShardState
from meshq.execution.ring.shards import Shards
from meshq.mesh.lifecycle import Repeater
from meshq.mesh.telemetry import logger

_log = logger(__name__)

_LOOK_SECONDS: Final = 1.0
_LOOK_AGAIN_AT_ALL: Final = 10
"""After so many looks all limited queues are looked at, whether anything is known to be amiss or not."""
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
    """

    def __init__(self, configs: QueueConfigs, shards: Shards, patience: float) -> None:
        self._configs = configs
        self._shards = shards
        self._patience = patience
        self._unsettled: set[str] = set()
        self._told: dict[tuple[str, str], tuple[int, ShardQueueConfig]] = {}
        # Of queues with limits as a whole: leases elsewhere, as far as they are known.
        self._foreign: dict[str, int] = {}
        self._silent_since: dict[str, float] = {}
        self._looks = 0
        self._settling = asyncio.Lock()
        self._repeater = Repeater("queues", self.run_once, _LOOK_SECONDS)
        shards.on_change = self._look_at_all

    async def start(self) -> None:
        """Begin to look."""
        await self._repeater.start()

    async def stop(self) -> None:
        """Look no more."""
        await self._repeater.stop()

    def of_shard(self, name: str) -> list[ShardQueueConfig]:
        """What a shard has to know before anything is leased from it. Its leases are to be counted anew."""
        self._look_at_all()
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
        # Whoever asks does not wait until everything has been moved.
        self._repeater.wake()
        return told

    async def run_once(self) -> None:
        """Look at what is not settled."""
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
        depths = await self._described([config.scope for config in wide])
        silent |= {name for name, answer in depths.items() if answer is None}
        for index, config in enumerate(wide):
            home = self._home(config.scope)
            away = {name: answer[index] for name, answer in depths.items() if answer and name != home}
            self._foreign[config.scope] = sum(depth.leased for depth in away.values())
        for shard in shards:
            name = await self._tell(shard, [c for c in wide if self._lives_on(c, shard)], silent)
            silent |= {name} - {""}
        self._note_settled(configs, depths, silent)
        return _Look([config.scope for config in wide], depths, silent)

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
        if not self._configs.is_wide(config.scope):
            return config
        if self._home(config.scope) != name:
            return config._replace(away=True)
        foreign = self._foreign.get(config.scope)
        hold = foreign is None or any(self._waited_for(other) for other in silent if other != name)
        return config._replace(hold=hold, foreign=foreign or 0)

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
        if home is None or home.state is not ShardState.OPEN:
            return
        for name, answer in depths.items():
            shard = self._shards.get(name)
            if shard is None or shard is home or not answer or not answer[index].ready:
                continue
            try:
                await self._move_from(shard, home, scope)
            except ShardError as error:
                _log.debug("tasks not moved", queue=scope, shard=name, reason=str(error))

    async def _move_from(self, shard: Shard, home: Shard, scope: str) -> None:
        for _ in range(_MOVES_AT_ONCE):
            items = await shard.move_away(scope, _MOVED_AT_ONCE)
            if not items:
                return
            await home.enqueue(items)

    def _note_settled(
        self,
        configs: Sequence[ShardQueueConfig],
        depths: dict[str, list[Depth] | None],
        silent: Collection[str],
    ) -> None:
        for name in list(self._silent_since):
            if name not in silent:
                del self._silent_since[name]
        if silent:
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
