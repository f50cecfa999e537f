"""The targets: what of the figures is looked at, how it is written, and when it is met."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

Figures = Mapping[str, Any]
NOT_MEASURED = "-"
_DISTURBED = 0.03


@dataclass(frozen=True, slots=True)
class Target:
    """One row of the table.

    Attributes:
        path: The scenario and the keys that lead to the figure, with dots between them.
        bound: What it is to be at least, or at most; None where there is none.
        unit: What stands behind the number.
        at_least: Whether more is better.
        digits: Places behind the decimal point.
        spread: The path of its range, if it has one.
        full: The path of a size, and what the row says that it is; a smaller one is told.
    """

    path: str
    bound: float | None
    unit: str
    at_least: bool = False
    digits: int = 1
    spread: str = ""
    full: tuple[str, int] | None = None

    def measured(self, found: Figures) -> str | None:
        """The figure as it is written; None where its scenario was not played."""
        value = _at(found, self.path)
        if value is None:
            return None
        text = f"{value:,.{self.digits}f}{self.unit}"
        limits = _at(found, self.spread) if self.spread else None
        if limits is not None:
            text += f" ({_range(limits, self.digits)})"
        return text + self._smaller(found) + self._disturbed(found)

    def _smaller(self, found: Figures) -> str:
        """What is to be said of a run that was not as large as the row says."""
        path, size = self.full or ("", 0)
        real = _at(found, path) if path else size
        return f", with {real:,}" if real < size else ""

    def _disturbed(self, found: Figures) -> str:
        """What is to be said where the machine's host gave much of its time to others meanwhile."""
        share = _at(found, f"{self.path.partition('.')[0]}.host_took") or 0.0
        return f"; the host took {100 * share:.0f} % of the time" if share >= _DISTURBED else ""

    def verdict(self, found: Figures) -> str | None:
        """Whether the target is met; None where that is not known."""
        value = _at(found, self.path)
        if value is None or self.bound is None:
            return None
        met = value >= self.bound if self.at_least else value <= self.bound
        return "yes" if met else "no"


def _rate(scenario: str, bound: float, path: str = "") -> Target:
    prefix = f"{scenario}.{path}." if path else f"{scenario}."
    return Target(
        f"{prefix}throughput_per_s", bound, "/s", at_least=True, digits=0, spread=f"{prefix}throughput_range"
    )


def _share(path: str, bound: float) -> Target:
    return Target(f"{path}.ratio", bound, "", at_least=True, digits=2, spread=f"{path}.ratio_range")


_WATCHES = ("events.watches", 5_000)
_WAITING = ("backlog.waiting", 1_000_000)
_RAN = ("memory.tasks", 1_000_000)
_DELAYED = 99_000
"""Of 100,000: a few may be due before the last one is stored."""

TARGETS: Mapping[str, Target] = {
    "bulk": replace(_rate("bulk", 12_000), full=("bulk.tasks", 100_000)),
    "peers-celery": Target("peers.celery.median", 15, " times", at_least=True, spread="peers.celery.range"),
    "peers-fastest": Target("peers.fastest.median", 4, " times", at_least=True, spread="peers.fastest.range"),
    "limit": Target("limit.fraction.median", 0.5, "", at_least=True, digits=2),
    "accept": replace(_rate("accept", 20_000), full=("accept.tasks", 100_000)),
    "calls": _rate("calls", 2_000),
    "calls-p99": Target("calls.latency_ms.p99", 50, " ms"),
    "single-p50": Target("single.latency_ms.p50", 5, " ms", spread="single.latency_p50_range"),
    "single-p99": Target("single.latency_ms.p99", 20, " ms"),
    "half-p99": Target("half.start_ms.p99", 50, " ms", spread="half.start_p99_range"),
    "half-own-p99": Target("half.own.start_ms.p99", 50, " ms", spread="half.own.start_p99_range"),
    "events-p99": Target("events.event_ms.p99", 20, " ms"),
    "events-beside-p99": Target("events.event_ms_beside_watches.p99", None, " ms", full=_WATCHES),
    "watches-memory": Target("events.rss_mb", 500, " MB", digits=0, full=_WATCHES),
    "backlog-ratio": Target("backlog.ratio", 0.9, "", at_least=True, digits=2, full=_WAITING),
    "backlog-within": Target("backlog.within_ratio", None, "", at_least=True, digits=2, full=_WAITING),
    "backlog-bytes": Target("backlog.shard_bytes_beyond_payload", 500, " B", digits=0, full=_WAITING),
    "backlog-list": Target("backlog.list_ms.all.p99", 50, " ms", full=_WAITING),
    "backlog-list-queue": Target("backlog.list_ms.queue.p99", 50, " ms", full=_WAITING),
    "idle-cpu": Target("idle.cpu_percent", 3, " %"),
    "idle-statements": Target("idle.statements_per_minute", 60, "", digits=0),
    "memory-highest": Target("memory.highest_mb", 150, " MB", digits=0, full=_RAN),
    "memory-growth": Target("memory.most_growth_mb", None, " MB", full=_RAN),
    "start": Target("start.seconds", 5, " s", spread="start.seconds_range"),
    "worker": _rate("worker", 15_000, "noop"),
    "worker-processes": Target("worker.process_scaling", None, " times", digits=2),
    "instances": _share("scaling.two_against_one", 1),
    "delay-p99": Target("delay.late_ms.p99", 250, " ms", full=("delay.waiting", _DELAYED)),
    "limits-running": _share("limits.running", 0.9),
    "limits-rate": _share("limits.rate", 0.9),
    "limits-running-per-key": _share("limits.running-per-key", 0.9),
    "limits-rate-per-key": _share("limits.rate-per-key", 0.9),
    "fairness-p99": Target("fairness.latency_ms.p99", None, " ms", full=("fairness.backlog", 100_000)),
    "priority-p99": Target("priority.latency_ms.p99", None, " ms", full=("priority.backlog", 100_000)),
}
"""By the name that a row of the page has."""


def _at(found: Figures, path: str) -> Any:
    value: Any = found
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value


def _range(limits: tuple[float, float], digits: int) -> str:
    return " to ".join(f"{limit:,.{digits}f}" for limit in limits)


Row = Callable[[str], tuple[str, str] | None]


def rows(found: Figures) -> Row:
    """What stands in the last two cells of a row: the figure, and whether the target is met."""

    def cells(name: str) -> tuple[str, str] | None:
        target = TARGETS.get(name)
        text = target.measured(found) if target else None
        if target is None or text is None:
            return None
        return text, target.verdict(found) or NOT_MEASURED

    return cells
