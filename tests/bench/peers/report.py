"""What the runs of all sides amount to: medians, ranges, ratios, and tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from meshq.bench.figures import percentile

MESHQ = "meshq"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one side.

    Attributes:
        tasks: Tasks submitted in bulk.
        seconds: From the first submission until the client has every result.
        cpu: Processor seconds of all processes in that time: client, workers and stores.
        waits: How long each single call took until the client had its result, in milliseconds.
        lost: Tasks without the right result, single ones included.
    """

    tasks: int
    seconds: float
    cpu: float
    waits: tuple[float, ...]
    lost: int

    @property
    def rate(self) -> float:
        """Tasks per second."""
        return self.tasks / self.seconds

    @property
    def cpu_per_thousand(self) -> float:
        """Processor seconds for a thousand tasks."""
        return self.cpu * 1000 / self.tasks

    def wait(self, percent: float) -> float:
        """A percentile of the single calls, in milliseconds."""
        return percentile(sorted(self.waits), percent)


@dataclass(frozen=True, slots=True)
class Side:
    """The runs of one side.

    Attributes:
        name: Of the peer, or `meshq`.
        setting: How it was run.
        durable: What survives a crash of the machine.
        runs: One a round; those that failed are missing.
        failures: Why they did.
        tried: Tasks per second in the trials before, by setting.
    """

    name: str
    setting: str
    durable: str
    runs: Mapping[int, Run]
    failures: Sequence[str] = ()
    tried: Mapping[str, float] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        """Tasks without the right result in all runs."""
        return sum(run.lost for run in self.runs.values())

    def figures(self) -> dict[str, Any]:
        """For programs."""
        runs = list(self.runs.values())
        found: dict[str, Any] = {"setting": self.setting, "durable": self.durable, "lost": self.lost}
        if self.tried:
            found["tried"] = {setting: round(rate, 1) for setting, rate in self.tried.items()}
        if self.failures:
            found["failures"] = list(self.failures)
        if runs:
            found |= {
                "tasks": runs[0].tasks,
                "throughput_per_s": _spread([run.rate for run in runs]),
                "p50_ms": _spread([run.wait(50) for run in runs], 2),
                "p99_ms": _spread([run.wait(99) for run in runs], 2),
                "cpu_s_per_1000": _spread([run.cpu_per_thousand for run in runs], 3),
            }
        return found


def ratios(ours: Side, theirs: Side) -> list[float]:
    """How many times as fast we were, round by round."""
    both = ours.runs.keys() & theirs.runs.keys()
    return [ours.runs[number].rate / theirs.runs[number].rate for number in sorted(both)]


def figures(sides: Sequence[Side]) -> dict[str, Any]:
    """Everything by side, with meshq's ratio to each."""
    found = {_key(side, sides): side.figures() for side in sides}
    ours = next((side for side in sides if side.name == MESHQ), None)
    for side in sides:
        if ours is not None and side is not ours and (times := ratios(ours, side)):
            found[_key(side, sides)]["meshq_ratio"] = _spread(times)
    return found


def tables(sides: Sequence[Side]) -> list[Table]:
    """The comparison, and in which setting each side was."""
    found = figures(sides)
    shown = _table(
        "word_count of three words, submit to result at the client; medians (lowest to highest)",
        ("side", "durable", "tasks", "tasks/s", "meshq is", "p50 ms", "p99 ms", "CPU s/1,000", "lost"),
    )
    settings = _table("settings", ("side", "setting", "tasks/s in the trials"))
    for name, one in sorted(found.items(), key=lambda item: -_rate(item[1])):
        if "tasks" in one:
            shown.add_row(*_cells(name, one))
        else:
            shown.add_row(name, one["durable"], "failed")
        settings.add_row(name, one["setting"], _tried(one))
    return [shown, settings]


def _cells(name: str, one: Mapping[str, Any]) -> list[str]:
    return [
        name,
        one["durable"],
        f"{one['tasks']:,}",
        _shown(one["throughput_per_s"], ",.0f"),
        _shown(one["meshq_ratio"], ".1f") + " x" if "meshq_ratio" in one else "",
        _shown(one["p50_ms"], ".1f"),
        f"{one['p99_ms']['median']:.1f}",
        f"{one['cpu_s_per_1000']['median']:.3f}",
        str(one["lost"]),
    ]


def _tried(one: Mapping[str, Any]) -> str:
    return "\n".join(f"{setting}: {rate:,.0f}" for setting, rate in one.get("tried", {}).items())


def _key(side: Side, sides: Sequence[Side]) -> str:
    alone = sum(other.name == side.name for other in sides) == 1
    return side.name if alone else f"{side.name} ({side.setting})"


def _spread(values: Sequence[float], digits: int = 1) -> dict[str, Any]:
    ends = [round(min(values), digits), round(max(values), digits)]
    return {"median": round(statistics.median(values), digits), "range": ends}


def _rate(figures: Mapping[str, Any]) -> float:
    return float(figures["throughput_per_s"]["median"]) if "tasks" in figures else 0.0


def _shown(value: Mapping[str, Any], form: str) -> str:
    low, high = value["range"]
    return f"{value['median']:{form}} ({low:{form}} to {high:{form}})"


def _table(title: str, headings: Sequence[str]) -> Table:
    made = Table(title=title, title_justify="left")
    for heading in headings:
        made.add_column(heading, justify="left" if heading in {"side", "setting", "durable"} else "right")
    return made
