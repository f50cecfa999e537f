"""What shards tell an instance: that a class it waits for has tasks, and news of its sessions' leases.

News may be lost with a connection; nothing depends on it alone. Lost bells are made up for by asking again
after a reconnect and by a slow safety poll, lost cancels by the ledger's repeated withdrawals, lost ends of
leases by the next word about the lease.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from meshq.execution.model import Lease


class SessionNews(Protocol):
    """Who wants to hear of sessions."""

    def cancel(self, session: str, lease: Lease, reason: str) -> None:
        """A task of the session is to be cancelled."""

    def lost(self, session: str, lease: Lease) -> None:
        """A lease of the session is gone."""

    def ended(self, session: str) -> None:
        """The session was ended, because its worker has started anew."""


class Waiter(Protocol):
    """Who waits for tasks."""

    def rung(self, shard: str) -> None:
        """A shard may have something."""

    def expect(self, shard: str) -> None:
        """A shard is about to get something, and will not call."""


class Doorbell:
    """Hands what shards say to those whom it concerns.

    Attributes:
        sessions: Who hears of sessions; set once everything is wired.
    """

    def __init__(self) -> None:
        self.sessions: SessionNews | None = None
        self._waiters: dict[str, set[Waiter]] = {}

    def wait_for(self, classes: Sequence[str], waiter: Waiter) -> None:
        """Call the waiter when one of the classes gets a task."""
        for name in classes:
            self._waiters.setdefault(name, set()).add(waiter)

    def forget(self, classes: Sequence[str], waiter: Waiter) -> None:
        """Call the waiter no longer."""
        for name in classes:
            waiters = self._waiters.get(name)
            if waiters is not None:
                waiters.discard(waiter)
                if not waiters:
                    del self._waiters[name]

    def expect(self, shard: str, classes: Iterable[str]) -> None:
        """Tell those who wait for some classes that this instance queues such on a shard.

        The shard does not call this instance for them. Whoever asks for them now asks behind the call that
        queues them, on the same connection, without waiting for its answer first.
        """
        for name in classes:
            for waiter in tuple(self._waiters.get(name, ())):
                waiter.expect(shard)

    def ring_all(self, shard: str) -> None:
        """Call everybody, because bells of this shard may have been lost."""
        for waiter in {waiter for waiters in self._waiters.values() for waiter in waiters}:
            waiter.rung(shard)

    def heard(self, shard: str, message: bytes) -> None:
        """Take what a shard has published for this instance."""
        kind, _, rest = message.partition(b" ")
        if kind == b"R":
            for waiter in tuple(self._waiters.get(rest.decode(), ())):
                waiter.rung(shard)
        elif self.sessions is not None:
            _tell(self.sessions, kind, shard, rest)


def _tell(news: SessionNews, kind: bytes, shard: str, rest: bytes) -> None:
    session, attempt, label, leased_ms, tenant, tail = rest.split(b" ", 5)
    epoch, _, number = label.partition(b":")
    lease = Lease(tail[:16], int(attempt), int(epoch), int(number), shard, tenant.decode(), int(leased_ms))
    if kind == b"C":
        news.cancel(session.decode(), lease, tail[16:].decode("utf-8", "replace"))
    elif kind == b"L":
        news.lost(session.decode(), lease)
    elif kind == b"E":
        news.ended(session.decode())


Due = Callable[[str, int], None]
"""Told (shard, milliseconds) when a delayed task will be due on a shard."""
