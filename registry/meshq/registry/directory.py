"""Which instances there are: state without I/O, fed with what etcd says.

An instance that vanishes without a goodbye is kept as stale, because etcd may have lost it while it
runs on. A stale instance is removed when it fails its health check, and otherwise after a while, but
never the last one of its component that still answers: an empty set never replaces a non-empty one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from meshq.mesh.registration import Announcement

MAX_WEIGHT: Final = 1_000
_MAX_SERVICES: Final = 256
_MAX_NUMBER: Final = 1e11


@dataclass(frozen=True, slots=True)
class Instance:
    """One process.

    Attributes:
        key: Its key in etcd.
        address: Where it serves gRPC.
        admin: Where it serves metrics.
        console: Where it serves the console; empty if it does not.
        services: What it serves, by full name.
        register_time: When it registered, in seconds since the epoch.
        leader: Whether it says that it does what one instance does for all.
        stale_until: None while it is registered; else until when it is kept, on the caller's clock.
    """

    key: str
    component: str
    instance_id: str
    address: str
    admin: str = ""
    console: str = ""
    services: tuple[str, ...] = ()
    zone: str = ""
    version: str = ""
    weight: int = 1
    register_time: float = 0.0
    leader: bool = False
    stale_until: float | None = None

    @property
    def stale(self) -> bool:
        """Whether its registration was lost without a goodbye."""
        return self.stale_until is not None


class Directory:
    """See the module.

    Args:
        stale_seconds: How long an instance is kept that vanished without a goodbye.

    Attributes:
        sequence: Counts up with every change.
    """

    def __init__(self, stale_seconds: float) -> None:
        self.sequence = 0
        self._stale_seconds = stale_seconds
        self._instances: dict[str, Instance] = {}
        self._services: dict[str, str] = {}

    def instances(self, component: str = "") -> list[Instance]:
        """The instances of one component, or of all, by component and id."""
        found = (item for item in self._instances.values() if component in {"", item.component})
        return sorted(found, key=lambda item: item.key)

    def services(self) -> dict[str, str]:
        """Every service that was ever seen, with its component.

        A service whose instances are all gone is still known: its callers shall be told that nobody
        is there, not that there is no such service.
        """
        return dict(sorted(self._services.items()))

    def replace_all(self, announcements: Iterable[Announcement], now: float) -> None:
        """Take a listing: what it lacks becomes stale."""
        listed = {item.key: item for item in announcements}
        for key in self._instances.keys() - listed.keys():
            self.remove(key, now)
        for announcement in listed.values():
            self.put(announcement)

    def put(self, announcement: Announcement) -> None:
        """Take what an instance says of itself."""
        if announcement.goodbye:
            self.drop(announcement.key)
            return
        instance = _instance(announcement)
        if self._instances.get(instance.key) == instance:
            return
        for other in [item for item in self._instances.values() if item.address == instance.address]:
            # An address has one process: whoever was registered there before is gone.
            del self._instances[other.key]
        self._instances[instance.key] = instance
        for service in instance.services:
            self._services.setdefault(service, instance.component)
        self.sequence += 1

    def remove(self, key: str, now: float) -> None:
        """Take that a key is gone without a goodbye."""
        instance = self._instances.get(key)
        if instance is not None and not instance.stale:
            self._instances[key] = replace(instance, stale_until=now + self._stale_seconds)
            self.sequence += 1

    def drop(self, key: str) -> None:
        """Forget an instance: it said goodbye, or failed its health check."""
        if self._instances.pop(key, None) is not None:
            self.sequence += 1

    def stale(self) -> list[Instance]:
        """The instances to be probed."""
        return [item for item in self._instances.values() if item.stale]

    def expire(self, now: float) -> None:
        """Forget what was stale for too long, where registered instances can do its work."""
        active = {item.component for item in self._instances.values() if not item.stale}
        for item in self.stale():
            if item.stale_until is not None and item.stale_until <= now and item.component in active:
                self.drop(item.key)


def dialable(address: str) -> bool:
    """Whether an address can be published: gRPC's xDS takes IP addresses only."""
    host, _, port = address.rpartition(":")
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return port.isdigit() and 0 < int(port) <= 65_535  # noqa: PLR2004


def _instance(announcement: Announcement) -> Instance:
    facts = announcement.metadata
    services = facts.get("services")
    named = services if isinstance(services, list) else []
    return Instance(
        key=announcement.key,
        component=announcement.component,
        instance_id=announcement.instance_id,
        address=announcement.address,
        admin=_text(facts.get("admin")),
        console=_text(facts.get("console")),
        services=tuple(name for name in named[:_MAX_SERVICES] if isinstance(name, str)),
        zone=_text(facts.get("zone")),
        version=_text(facts.get("version")),
        weight=min(max(int(_number(facts.get("weight"), 1)), 1), MAX_WEIGHT),
        register_time=_number(facts.get("register_time"), 0),
        leader=facts.get("leader") is True,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any, default: float) -> float:
    # The comparison is false for what is not a number at all.
    return value if isinstance(value, int | float) and 0 <= value <= _MAX_NUMBER else default
