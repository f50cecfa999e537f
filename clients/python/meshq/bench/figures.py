"""What runs amount to: throughput, latency, what was lost; medians, ranges and percentiles."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from meshq.client import Task


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one run.

    Attributes:
        tasks: How many tasks were accepted.
        lost: How many of them did not succeed, or are not known any more.
        seconds: From the first submission to the last end.
        p50: The median of the time from acceptance to the end at the worker, in milliseconds.
        p99: Its 99th percentile, in milliseconds.
    """

    tasks: int
    lost: int
    seconds: float
    p50: float
    p99: float

    @classmethod
    def of(cls, accepted: int, ended: Sequence[Task], seconds: float) -> Self:
        """Make the figures of a run.

        Args:
            accepted: How many tasks were accepted.
            ended: Those that were found in the ledger.
            seconds: From the first submission until all were known to have ended.
        """
        good = [task for task in ended if task.succeeded]
        waits = sorted(latency_ms(task) for task in good)
        return cls(accepted, accepted - len(good), seconds, percentile(waits, 50), percentile(waits, 99))

    @property
    def throughput(self) -> float:
        """Tasks per second from the first submission to the last end."""
        return (self.tasks - self.lost) / self.seconds if self.seconds > 0 else 0.0

    def summary(self) -> dict[str, Any]:
        """The run for programs."""
        return {
            "tasks": self.tasks,
            "throughput_per_s": round(self.throughput, 1),
            "latency_ms": {"p50": round(self.p50, 1), "p99": round(self.p99, 1)},
            "lost": self.lost,
        }

    def line(self) -> str:
        """The run as one JSON object."""
        return json.dumps(self.summary())


def latency_ms(task: Task) -> float:
    """Milliseconds from a task's acceptance until execution had its result, by the servers' clocks."""
    if task.create_time is None or task.end_time is None:
        return 0.0
    return (task.end_time - task.create_time).total_seconds() * 1000


def percentile(ascending: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of all do not exceed; 0 of none."""
    if not ascending:
        return 0.0
    return ascending[max(0, math.ceil(len(ascending) * percent / 100) - 1)]


def spread(values: Iterable[float]) -> dict[str, float]:
    """What many values in milliseconds amount to."""
    ascending = sorted(values)
    return {
        "p50": round(percentile(ascending, 50), 2),
        "p99": round(percentile(ascending, 99), 2),
        "max": round(percentile(ascending, 100), 2),
    }


def typical(spreads: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """What the spreads of several runs amount to: the median of each percentile."""
    return {name: round(statistics.median(one[name] for one in spreads), 2) for name in spreads[0]}


def ranged(name: str, values: Sequence[float], digits: int = 1) -> dict[str, Any]:
    """What the same figure of several runs amounts to: the median by its name, and the range.

    Args:
        name: What it is called, such as `throughput_per_s`; its range is then `throughput_range`.
        values: One of each run.
        digits: Places behind the decimal point.
    """
    return {
        name: round(statistics.median(values), digits),
        f"{name.removesuffix('_per_s')}_range": [round(min(values), digits), round(max(values), digits)],
    }
