"""Who of the instances of a component does what one of them does for all.

The candidates race for a key in etcd, which hangs on a lease of a few seconds. Whoever has it takes the next
term of the office in the component's database. The term is what counts: whatever is written under the office
is written only while its term stands (see `meshq.mesh.postgres.terms`), so that two who believe to be in
office do no harm. The key makes a change quick: it is deleted at a stop in order, and ends with its lease.

While etcd is away nobody loses an office. The incumbent holds its row in the database instead, anew every few
seconds; where a row is not held any more, another takes the next term.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from time import monotonic
from typing import Any, Final, NamedTuple, Protocol

from prometheus_client import Counter, Gauge

from meshq.contract.errors import MeshqError
from meshq.mesh.lifecycle import Repeater, cancelled
from meshq.mesh.telemetry import logger

_log = logger(__name__)

PREFIX: Final = "meshq-leader/"
"""Outside of `meshq.`, below which the registry finds the processes of the mesh."""

_ETCD_SECONDS: Final = 2.0
_SOON_SECONDS: Final = 1.0
_RESIGN_SECONDS: Final = 2.0

_LEADS: Final = Gauge("meshq_office_held", "Whether this instance is in office.", ["office"])
_TERM: Final = Gauge("meshq_office_term", "The term in which this instance was in office last.", ["office"])
_TAKEN: Final = Counter("meshq_office_taken", "How often this instance has come into office.", ["office"])


class Incumbent(Protocol):
    """Who asks whether it is in office; see `Election`."""

    @property
    def name(self) -> str:
        """The office."""

    @property
    def term(self) -> int:
        """The term of this instance; 0 while it is not in office."""

    @property
    def leads(self) -> bool:
        """Whether this instance is in office."""

    def doubt(self) -> None:
        """The term seems to be over."""


class Pace(NamedTuple):
    """How soon what is noticed.

    Attributes:
        lease: For how many seconds the key outlives its holder.
        renew: Seconds between renewals of the lease.
        hold: For how many seconds the row is held without etcd, and etcd is away before the row counts.
        hold_again: Seconds between renewals of the row.
    """

    lease: int = 6
    renew: float = 2.0
    hold: float = 10.0
    hold_again: float = 3.0


class Etcd(Protocol):
    """What is used of `meshq.mesh.etcd.EtcdClient`."""

    async def get(self, key: str) -> Any:
        """The entry of a key, or None."""

    async def create(self, key: str, value: bytes, lease: int) -> bool:
        """Write an entry unless the key exists; whether it was written."""

    async def grant(self, seconds: int) -> int:
        """A new lease."""

    async def keep_alive(self, lease: int) -> bool:
        """Renew a lease; whether it still existed."""

    async def revoke(self, lease: int) -> None:
        """End a lease, and with it the keys that hang on it."""

    def watch(self, prefix: str) -> AsyncIterator[Any]:
        """Yield something at the start and after each change."""


class Office(Protocol):
    """The office in the database. All methods raise `MeshqError` when it does not answer."""

    async def free(self) -> bool:
        """Whether nobody else holds it."""

    async def take(self, hold: float) -> int | None:
        """Begin the next term, and hold the office for some seconds; None where another one holds it."""

    async def hold(self, term: int, seconds: float) -> bool:
        """Hold the office for some seconds from now; whether the term is still the office's."""


_USUAL: Final = Pace()


class Election:
    """See the module.

    Args:
        name: The office.
        holder: This instance.
        etcd: Where the candidates race.
        office: Where terms are counted.
        pace: How soon what is noticed.

    Attributes:
        name: The office.
        term: The term of this instance; 0 while it is not in office.
    """

    def __init__(self, name: str, holder: str, etcd: Etcd, office: Office, pace: Pace = _USUAL) -> None:
        self.name = name
        self.term = 0
        self._holder = holder
        self._key = f"{PREFIX}{name}"
        self._etcd = etcd
        self._office = office
        self._pace = pace
        self._doubted = False
        # Whether the key may be another one's, or gone: the watch tells, so that it is not read each time.
        self._key_doubted = True
        self._lease = 0
        self._trusted_until = 0.0
        self._away_since: float | None = None
        self._listeners: list[Callable[[], None]] = []
        self._repeater = Repeater(f"election {name}", self._run_once, self._pace.renew)
        self._watch: asyncio.Task[None] | None = None
        _LEADS.labels(name).set(0)

    @property
    def leads(self) -> bool:
        """Whether this instance is in office, as far as it can know.

        A process that was stopped for longer than its lease knows from the clock that it may not be any more.
        """
        return bool(self.term) and monotonic() < self._trusted_until

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call back when this instance has come into office or is out of it; listeners must not raise."""
        self._listeners.append(listener)

    def doubt(self) -> None:
        """The term seems to be over; look at once."""
        self._doubted = True
        self._repeater.wake()

    async def start(self) -> None:
        """Stand for the office from now on."""
        if self._watch is None:
            await self._repeater.start()
            self._watch = asyncio.create_task(self._follow(), name=f"office {self.name}")

    async def stop(self) -> None:
        """Leave the office to others, at once; gives up after two seconds, then the lease ends by itself."""
        watch, self._watch = self._watch, None
        if watch is None:
            return
        await cancelled(watch)
        await self._repeater.stop()
        term = self.term
        self._lose()
        with suppress(MeshqError, TimeoutError):
            async with asyncio.timeout(_RESIGN_SECONDS):
                if term:
                    await self._office.hold(term, 0)
        await self._revoke()

    async def _follow(self) -> None:
        async for _ in self._etcd.watch(self._key):
            self._key_doubted = True
            self._repeater.wake()

    async def _run_once(self) -> float:
        try:
            return await (self._keep() if self.term else self._seek())
        except MeshqError as error:
            _log.debug("election goes on", office=self.name, reason=error.message)
            return _SOON_SECONDS

    # -- in office -------------------------------------------------------------------------------------

    async def _keep(self) -> float:
        asked = monotonic()
        if await self._stands() and await self._has_key():
            self._trusted_until = asked + self._pace.lease
            return self._pace.renew
        asked = monotonic()
        if await self._office.hold(self.term, self._pace.hold):
            self._trusted_until = asked + self._pace.hold
            return self._pace.hold_again
        self._lose()
        await self._revoke()
        return _SOON_SECONDS

    async def _stands(self) -> bool:
        """Whether there is no doubt of the term: etcd does not know when another one has taken the next."""
        if self._doubted and not await self._office.hold(self.term, 0):
            return False
        self._doubted = False
        return True

    async def _has_key(self) -> bool:
        """Whether etcd says that this instance is in office; false when it does not answer."""
        try:
            async with asyncio.timeout(_ETCD_SECONDS):
                if (
                    self._lease
                    and await self._etcd.keep_alive(self._lease)
                    and (not self._key_doubted or await self._is_own_key())
                ):
                    return True
                # The lease has ended, or etcd has come back empty: perhaps nobody has noticed.
                return await self._create_key() and await self._office.hold(self.term, 0)
        except (MeshqError, TimeoutError):
            return False

    async def _is_own_key(self) -> bool:
        own, self._key_doubted = False, False
        try:
            entry = await self._etcd.get(self._key)
            own = entry is not None and entry.lease == self._lease
        finally:
            self._key_doubted = self._key_doubted or not own
        return own

    async def _create_key(self) -> bool:
        self._lease = await self._etcd.grant(self._pace.lease)
        return await self._etcd.create(self._key, self._holder.encode(), self._lease)

    # -- out of office ---------------------------------------------------------------------------------

    async def _seek(self) -> float:
        try:
            async with asyncio.timeout(_ETCD_SECONDS):
                entry = await self._etcd.get(self._key)
        except (MeshqError, TimeoutError):
            return await self._seek_without_etcd()
        self._away_since = None
        if entry is not None and entry.lease != self._lease:
            return self._pace.renew
        # Somebody may hold the office though etcd has lost the key, or cannot reach etcd.
        if not await self._office.free():
            return _SOON_SECONDS
        return await self._campaign()

    async def _seek_without_etcd(self) -> float:
        now = monotonic()
        if self._away_since is None:
            self._away_since = now
        # The incumbent, too, needs time to notice that etcd is away.
        if now - self._away_since >= self._pace.hold:
            asked = monotonic()
            if term := await self._office.take(self._pace.hold):
                self._gain(term, asked + self._pace.hold)
        return _SOON_SECONDS

    async def _campaign(self) -> float:
        asked = monotonic()
        term = None
        try:
            async with asyncio.timeout(2 * _ETCD_SECONDS):
                if await self._create_key():
                    term = await self._office.take(0)
        except TimeoutError:
            _log.debug("election takes too long", office=self.name)
        finally:
            if term is None:
                await self._revoke()
        if term is not None:
            self._gain(term, asked + self._pace.lease)
        return _SOON_SECONDS

    def _gain(self, term: int, trusted_until: float) -> None:
        self.term = term
        self._trusted_until = trusted_until
        _TERM.labels(self.name).set(term)
        _TAKEN.labels(self.name).inc()
        _log.info("in office", office=self.name, term=term)
        self._tell()

    def _lose(self) -> None:
        if self.term:
            _log.info("out of office", office=self.name, term=self.term)
            self.term = 0
            self._doubted = False
            self._tell()

    def _tell(self) -> None:
        _LEADS.labels(self.name).set(1 if self.term else 0)
        for listener in self._listeners:
            listener()

    async def _revoke(self) -> None:
        lease, self._lease = self._lease, 0
        if lease:
            with suppress(MeshqError, TimeoutError):
                async with asyncio.timeout(_ETCD_SECONDS):
                    await self._etcd.revoke(lease)
