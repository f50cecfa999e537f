"""What the session process is told at its start, as the first notice on the pipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from meshq.v1 import worker_service_pb2 as pb

PROTOCOL_VERSION = 1
CAPABILITIES = ("cancel", "progress", "output")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """Who the worker is, and where it stands.

    Attributes:
        target: Where the server is.
        worker_id: The worker's id, stable over restarts of this process.
        instance_key: Random bytes of the worker's start, as hex.
        task_types: The types that have handlers.
        queues: The queues to serve.
        queue_weights: How they share the worker, if not by age.
        slots: Tasks at a time.
        labels: For people.
        build_id: For people.
        user_agent: What the worker is made of.
        held: Leases that are held already, as hex, when this process replaces one that died.
        assigned: How many tasks were assigned before.
    """

    target: str
    worker_id: str
    instance_key: str
    task_types: tuple[str, ...]
    queues: tuple[str, ...]
    slots: int
    queue_weights: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    build_id: str = ""
    user_agent: str = ""
    held: tuple[str, ...] = ()
    assigned: int = 0

    def to_notice(self) -> dict[str, Any]:
        """The JSON form."""
        return dataclasses.asdict(self)

    @classmethod
    def from_notice(cls, notice: Mapping[str, Any]) -> Self:
        """The settings in a notice."""
        lists = {name: tuple(notice[name]) for name in ("task_types", "queues", "held")}
        return cls(**{**notice, **lists})

    def hello(self, held: list[bytes]) -> pb.ConnectRequest:
        """The first frame of a session."""
        return pb.ConnectRequest(
            hello=pb.Hello(
                protocol_version=PROTOCOL_VERSION,
                capabilities=CAPABILITIES,
                worker_id=self.worker_id,
                instance_key=bytes.fromhex(self.instance_key),
                build_id=self.build_id,
                labels=self.labels,
                task_types=self.task_types,
                queues=self.queues,
                queue_weights=self.queue_weights,
                slots=self.slots,
                held_leases=held,
                user_agent=self.user_agent,
            )
        )
