"""Workers, the processes of the mesh, the ring of shards, and pages of anything."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from meshq.client.models.states import InstanceState, ShardState, WorkerMode, WorkerState

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """A part of a list, and the token of the next one; empty on the last page."""

    items: tuple[Item, ...]
    next_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A connected worker; `leases` is how many tasks it holds."""

    worker_id: str
    tenant: str = ""
    mode: WorkerMode = WorkerMode.UNSPECIFIED
    state: WorkerState = WorkerState.UNSPECIFIED
    instance_id: str = ""
    session_id: str = ""
    task_types: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    slots: int = 0
    leases: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    build_id: str = ""
    user_agent: str = ""
    connect_time: dt.datetime | None = None
    last_seen_time: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """A gRPC service of the mesh, and how many instances of which component serve it."""

    service: str
    component: str
    instances: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One process of the mesh; a leader does what one instance of its component does for all."""

    component: str
    instance_id: str
    address: str
    admin_address: str = ""
    services: tuple[str, ...] = ()
    zone: str = ""
    version: str = ""
    weight: int = 1
    state: InstanceState = InstanceState.UNSPECIFIED
    register_time: dt.datetime | None = None
    leader: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One server of the ring.

    `share` is the part of the key space that it owns, 0 to 1; `tasks_to_move` what a draining shard still
    has to hand over; `primary_address` where it is now, if that is known; `max_memory_bytes` is 0 for no
    limit.
    """

    shard: str
    address: str
    state: ShardState = ShardState.UNSPECIFIED
    weight: int = 1
    share: float = 0.0
    epoch: int = 0
    ready: int = 0
    delayed: int = 0
    leased: int = 0
    used_memory_bytes: int = 0
    max_memory_bytes: int = 0
    keys: int = 0
    operations_per_second: float = 0.0
    tasks_to_move: int = 0
    primary_address: str = ""


@dataclass(frozen=True, slots=True)
class Ring:
    """The shards, and the version of the ring that they make up."""

    version: int
    shards: tuple[Shard, ...]
