"""The settings of an execution process."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, SecretStr

from meshq.contract.limits import NAME_PATTERN
from meshq.execution.ring.hashring import RingShard
from meshq.mesh.settings import CommaSeparated, ProcessSettings

_MAX_WEIGHT = 100
_MAX_PORT = 65_535


def parse_shard(text: str) -> RingShard:
    """A shard as settings name it: `name=host:port`, or `name=host:port*weight`."""
    name, _, rest = text.partition("=")
    address, star, weight = rest.partition("*")
    host, _, port = address.rpartition(":")
    if not NAME_PATTERN.fullmatch(name) or not host or not port.isdigit() or int(port) > _MAX_PORT:
        raise ValueError(f"{text!r} must be name=host:port, with *weight behind it where it is not 1")
    if star and not (weight.isdigit() and 1 <= int(weight) <= _MAX_WEIGHT):
        raise ValueError(f"the weight of {name} must be 1 to {_MAX_WEIGHT}, not {weight!r}")
    return RingShard(name, address, int(weight) if star else 1)


def _shards(values: tuple[str, ...]) -> tuple[str, ...]:
    names = [parse_shard(value).name for value in values]
    if len(set(names)) != len(names):
        raise ValueError("names a shard twice")
    return values


class ExecutionSettings(ProcessSettings):
    """What execution has beyond what every process has."""

    component: ClassVar[str] = "meshq.execution"

    database_url: SecretStr = Field(min_length=1)
    """The execution database: `postgresql://...`."""
    shards: Annotated[CommaSeparated, AfterValidator(_shards)] = ()
    """Shards to make sure of in the ring: `name=host:port`, with commas between them."""
    shard_password: SecretStr | None = None
    """The password of the shards' default user."""
    lease_ttl: float = Field(15.0, ge=0.5, le=3_600)
    """Seconds after which a silent session is lost, with its leases."""
    heartbeat_interval: float = Field(5.0, ge=0.1, le=1_200)
    """Seconds between the heartbeats of a worker."""
    delivery_timeout: float = Field(5.0, ge=0.2, le=600)
    """Seconds that a worker has to acknowledge an assignment."""
    cancel_grace: float = Field(10.0, ge=0, le=3_600)
    """Seconds that a handler has to stop by itself when its task is cancelled."""

    def wanted_shards(self) -> list[RingShard]:
        """The shards that the settings name."""
        return [parse_shard(value) for value in self.shards]
