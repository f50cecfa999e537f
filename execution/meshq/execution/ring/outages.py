"""Takes shards out of the ring that nobody can use, and takes them back when they answer again.

An instance that cannot use a shard says so in the database, again and again. When all instances that live
have said so for long enough, a version of the ring is made in which the shard is out: its tasks are not there
any more, so that the ledger gives them to the others. When it answers again it is closed, so that nothing it
holds counts, and then a version is made in which it takes part; there it begins anew.

Any instance may make these versions, since each is made from the current one while nobody else makes one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from time import monotonic
from typing import Final, Protocol

from meshq.contract.errors import MeshqError
from meshq.execution.ring.errors import ShardError, ShardUnavailable
from meshq.execution.ring.hashring import Ring, RingShard
from meshq.execution.ring.servers import Servers
from meshq.execution.ring.shards import Shards
from meshq.mesh.lifecycle import Repeater
from meshq.mesh.telemetry import logger

_log = logger(__name__)

REPORT_VALID_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 2.0
_BACK_SECONDS: Final = 5.0
"""For so long a shard has to answer before it comes back: versions are not made by the second."""

Members = Sequence[RingShard]


class Versions(Protocol):
    """The versions of the ring."""

    async def change(self, edit: Callable[[Ring], Awaitable[Members]]) -> Ring:
        """Make a version while nobody else does."""


class Reports(Protocol):
    """What instances say of shards."""

    async def report(self, instance: str, shards: Sequence[str]) -> None:
        """An instance cannot use shards."""

    async def end(self, instance: str, shards: Sequence[str]) -> None:
        """It can use them again."""

    async def forget(self, shard: str) -> None:
        """Drop what was said of a shard, and what was to be completed there later."""

    async def load(self, shard: str) -> dict[str, float]:
        """For how many seconds instances cannot use a shard."""


class Outages:
    """See the module.

    Args:
        instance_id: This instance.
        shards: The shards in use.
        versions: Of the ring.
        reports: What instances say.
        servers: Looks at shards that are out.
        live: The ids of all running instances.
        follow: Loads the current version.
        after: Seconds after which a shard is taken out.
    """

    def __init__(
        self,
        instance_id: str,
        shards: Shards,
        *,
        versions: Versions,
        reports: Reports,
        servers: Servers,
        live: Callable[[], Collection[str]],
        follow: Callable[[], Awaitable[None]],
        after: float,
    ) -> None:
        self._instance_id = instance_id
        self._shards = shards
        self._versions = versions
        self._reports = reports
        self._servers = servers
        self._live = live
        self._follow = follow
        self._after = after
        self._reported: set[str] = set()
        self._answering: dict[str, float] = {}
        self._repeater = Repeater("outages", self.run_once, _LOOK_SECONDS)
        self.start = self._repeater.start
        self.stop = self._repeater.stop

    async def run_once(self) -> None:
        """Look at all shards once."""
        try:
            await self._look()
        except MeshqError as error:
            _log.info("the ring stays as it is", reason=error.message)

    async def _look(self) -> None:
        unusable = [shard.name for shard in self._shards.all() if not shard.usable]
        await self._say(unusable)
        for name in unusable:
            await self._take_out(name)
        out = [member for member in self._shards.ring.shards if member.out]
        self._answering = {member.name: await self._answers(member) for member in out}
        for member in out:
            since = self._answering[member.name]
            if since and monotonic() - since >= _BACK_SECONDS:
                await self._take_back(member)

    async def _say(self, unusable: Sequence[str]) -> None:
        """Nothing is said, and nothing asked of the database, while all is well."""
        if unusable:
            await self._reports.report(self._instance_id, unusable)
        usable_again = self._reported - set(unusable)
        self._reported |= set(unusable)
        if usable_again:
            await self._reports.end(self._instance_id, sorted(usable_again))
            self._reported -= usable_again

    # -- out -------------------------------------------------------------------------------------------

    async def _take_out(self, name: str) -> None:
        reports = await self._reports.load(name)
        missed = {self._instance_id, *self._live()} - {
            instance for instance, seconds in reports.items() if seconds >= self._after
        }
        if missed or not self._others_work(name):
            return

        async def edit(ring: Ring) -> Members:
            member = ring.member(name)
            others = [shard for shard in ring.shards if shard.name != name and shard.takes]
            if member is None or not others:
                return ring.shards
            return _with(ring, replace(member, out=True))

        ring = await self._versions.change(edit)
        await self._follow()
        _log.warning("shard taken out of the ring, as nobody can use it", shard=name, ring=ring.version)

    def _others_work(self, name: str) -> bool:
        """Whether a shard remains that can be used. Where none can, it is not the shard that is to blame."""
        return any(shard.member.takes for shard in self._shards.usable() if shard.name != name)

    # -- back ------------------------------------------------------------------------------------------

    async def _answers(self, member: RingShard) -> float:
        """Since when a shard that is out answers and can be used; 0 when it does not."""
        try:
            content = await self._servers.look(member.address)
            if content.keys and not content.epoch:
                raise ShardUnavailable("it holds data that is not of meshq")
        except ShardError as error:
            _log.debug("shard stays out of the ring", shard=member.name, reason=str(error))
            return 0.0
        return self._answering.get(member.name) or monotonic()

    async def _take_back(self, member: RingShard) -> None:
        async def edit(ring: Ring) -> Members:
            current = ring.member(member.name)
            if current is None or not current.out or current.address != member.address:
                return ring.shards
            await self._servers.shut(current.address, ring.version)
            await self._reports.forget(current.name)
            return _with(ring, replace(current, out=False))

        try:
            ring = await self._versions.change(edit)
        except ShardError as error:
            _log.info("shard stays out of the ring", shard=member.name, reason=str(error))
            return
        await self._follow()
        _log.info("shard taken back into the ring", shard=member.name, ring=ring.version)


def _with(ring: Ring, changed: RingShard) -> list[RingShard]:
    return [changed if shard.name == changed.name else shard for shard in ring.shards]
