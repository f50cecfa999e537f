"""The settings of an execution process."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, SecretStr

from meshq.contract.limits import MAX_SHARD_WEIGHT, NAME_PATTERN
from meshq.execution.ring.address import parse_address
from meshq.execution.ring.hashring import RingShard
from meshq.execution.ring.primary import Passwords
from meshq.mesh.settings import CommaSeparated, ProcessSettings


def parse_shard(text: str) -> RingShard:
    """A shard as settings name it: `name=address`, or `name=address*weight`."""
    name, _, rest = text.partition("=")
    address, star, weight = rest.partition("*")
    if not NAME_PATTERN.fullmatch(name) or not address:
        raise ValueError(f"{text!r} must be name=host:port, with *weight behind it where it is not 1")
    parsed = parse_address(address)
    if star and not (weight.isdigit() and 1 <= int(weight) <= MAX_SHARD_WEIGHT):
        raise ValueError(f"the weight of {name} must be 1 to {MAX_SHARD_WEIGHT}, not {weight!r}")
    return RingShard(name, str(parsed), int(weight) if star else 1)


def _shards(values: tuple[str, ...]) -> tuple[str, ...]:
    """The shards one by one: between the Sentinels of one, too, there are commas."""
    whole: list[str] = []
    for value in values:
        if whole and "=" not in value:
            whole[-1] += f",{value}"
        else:
            whole.append(value)
    names = [parse_shard(value).name for value in whole]
    if len(set(names)) != len(names):
        raise ValueError("names a shard twice")
    return tuple(whole)


class ExecutionSettings(ProcessSettings):
    """What execution has beyond what every process has."""

    component: ClassVar[str] = "meshq.execution"

    database_url: SecretStr = Field(min_length=1)
    """The execution database: `postgresql://...`."""
    shards: Annotated[CommaSeparated, AfterValidator(_shards)] = ()
    """Shards to make sure of in the ring: `name=host:port` or
    `name=sentinel://host:port,host:port/primary`, with commas between them."""
    shard_password: SecretStr | None = None
    """The password of the shards' default user."""
    sentinel_password: SecretStr | None = None
    """The password of the Sentinels' default user."""
    lease_ttl: float = Field(15.0, ge=0.5, le=3_600)
    """Seconds after which a silent session is lost, with its leases."""
    shard_out_after: float = Field(30.0, ge=1, le=86_400)
    """Seconds after which a shard that no instance can use leaves the ring; at least the lease time."""
    heartbeat_interval: float = Field(5.0, ge=0.1, le=1_200)
    """Seconds between the heartbeats of a worker."""
    delivery_timeout: float = Field(5.0, ge=0.2, le=600)
    """Seconds that a worker has to acknowledge an assignment."""
    cancel_grace: float = Field(10.0, ge=0, le=3_600)
    """Seconds that a handler has to stop by itself when its task is cancelled."""

    def wanted_shards(self) -> list[RingShard]:
        """The shards that the settings name."""
        return [parse_shard(value) for value in self.shards]

    def passwords(self) -> Passwords:
        """What servers of the ring ask for."""
        return Passwords(_revealed(self.shard_password), _revealed(self.sentinel_password))


def _revealed(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None
