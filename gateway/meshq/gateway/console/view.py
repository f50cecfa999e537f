"""What the console shows: the mesh as plain values, each part with the reason when it is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")

MANAGEMENT = "meshq.management"
EXECUTION = "meshq.execution"
REGISTRY = "meshq.registry"
GATEWAY = "meshq.gateway"
COMPONENTS = (GATEWAY, MANAGEMENT, EXECUTION, REGISTRY)


@dataclass(frozen=True)
class Listing(Generic[Item]):
    """One part of the page.

    Attributes:
        items: What there is, or was when it last could be asked.
        problem: Why it could not be asked; None when it was.
        more: Whether there is more than is shown.
        age: Seconds since the items were true, where they are old.
    """

    items: Sequence[Item] = ()
    problem: str | None = None
    more: bool = False
    age: float = 0.0


@dataclass(frozen=True)
class InstanceView:
    """A process; `age` is in seconds."""

    component: str
    instance_id: str
    address: str
    admin_address: str
    zone: str
    version: str
    weight: int
    stale: bool
    age: float


@dataclass(frozen=True)
class ShardView:
    """A shard; `share` is a part of 1."""

    shard: str
    address: str
    state: str
    weight: int
    share: float
    epoch: int
    ready: int
    delayed: int
    leased: int
    memory: int


@dataclass(frozen=True)
class QueueView:
    """A queue; rates are tasks a second, `oldest` is the age of the oldest ready task in seconds."""

    queue: str
    open: int
    pending: int
    scheduled: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    expired: int
    arrival_rate: float
    completion_rate: float
    oldest: float | None
    complete: bool


@dataclass(frozen=True)
class WorkerView:
    """A worker; times are ages in seconds."""

    worker_id: str
    mode: str
    state: str
    instance_id: str
    task_types: Sequence[str]
    queues: Sequence[str]
    slots: int
    leases: int
    user_agent: str
    connected: float
    seen: float


@dataclass(frozen=True)
class Overview:
    """Everything that the mesh told when it was asked last."""

    instances: Listing[InstanceView] = field(default_factory=Listing)
    shards: Listing[ShardView] = field(default_factory=Listing)
    queues: Listing[QueueView] = field(default_factory=Listing)
    workers: Listing[WorkerView] = field(default_factory=Listing)
