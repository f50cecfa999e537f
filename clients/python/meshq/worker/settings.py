"""What a worker is started with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from meshq.contract.limits import (
    DEFAULT_QUEUE,
    MAX_QUEUE_WEIGHT,
    MAX_WORKER_QUEUES,
    MAX_WORKER_SLOTS,
    NAME_PATTERN,
    NAME_RULE,
)

DEFAULT_SLOTS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """What a worker is started with; see `Worker` for the meaning.

    Raises:
        ValueError: A value breaks its rule.
    """

    target: str
    queues: tuple[str, ...]
    queue_weights: Mapping[str, int]
    worker_id: str
    slots: int
    processes: int
    prefetch: int | None
    labels: Mapping[str, str]
    build_id: str
    drain_timeout: float

    def __post_init__(self) -> None:
        for name in (*self.queues, self.worker_id):
            if not NAME_PATTERN.fullmatch(name):
                raise ValueError(f"{name!r} {NAME_RULE}")
        if not 1 <= len(self.queues) <= MAX_WORKER_QUEUES:
            raise ValueError(f"queues must be 1 to {MAX_WORKER_QUEUES}, not {len(self.queues)}")
        for name, weight in self.queue_weights.items():
            if not (isinstance(weight, int) and 1 <= weight <= MAX_QUEUE_WEIGHT):
                rule = f"must be an integer of 1 to {MAX_QUEUE_WEIGHT:,}, not {weight!r}"
                raise ValueError(f"the weight of queue {name} {rule}")
        if not 1 <= self.slots <= MAX_WORKER_SLOTS:
            raise ValueError(f"slots must be 1 to {MAX_WORKER_SLOTS:,}, not {self.slots}")
        if self.processes < 1:
            raise ValueError(f"processes must be at least 1, not {self.processes}")
        if self.prefetch is not None and self.prefetch < 0:
            raise ValueError(f"prefetch must not be negative, not {self.prefetch}")


def parse_queues(entries: Iterable[str]) -> tuple[str, ...] | dict[str, int]:
    """The queues of a command line: `name`, or `name=weight`; `default` if there are none.

    Returns:
        With weights as soon as one queue has one; a queue without has 1.

    Raises:
        ValueError: A weight is no number.
    """
    weights: dict[str, int] = {}
    weighted = False
    for entry in entries:
        name, equals, weight = entry.partition("=")
        weighted = weighted or bool(equals)
        try:
            weights[name] = int(weight) if equals else 1
        except ValueError:
            raise ValueError(f"a queue is written NAME or NAME=WEIGHT, not {entry!r}") from None
    if not weights:
        return (DEFAULT_QUEUE,)
    return weights if weighted else tuple(weights)
