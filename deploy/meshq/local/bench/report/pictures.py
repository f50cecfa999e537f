"""The pictures of the page, as SVG."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from meshq.bench.single import POINTS
from meshq.local.bench.report.page import costs_of
from meshq.local.bench.report.peers import with_peers
from meshq.local.bench.report.targets import Figures

_SIZE = (8.0, 3.2)
_RATES = {
    "worker alone": ("worker", "noop"),
    "accept": ("accept",),
    "bulk": ("bulk",),
    "calls": ("calls",),
}
_LATENCIES = {
    "one task, idle": ("single", "latency_ms"),
    "submit to start, half load": ("half", "start_ms"),
    "concurrent calls": ("calls", "latency_ms"),
    "commit to event": ("events", "event_ms"),
}


def draw(folder: Path, found: Figures) -> Iterator[str]:
    """Draw what can be drawn of the figures into a folder; the names of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    # Text stays text, and the same figures make the same file.
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "meshq"}
    for name, paint in _PICTURES.items():
        figure = Figure(figsize=_SIZE, layout="constrained")
        if paint(figure.add_subplot(), found):
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
            yield f"{name}.svg"


def throughput(axes: Axes, found: Figures) -> bool:
    """Tasks per second, with the range of the runs."""
    known = {title: one for title, path in _RATES.items() if (one := _at(found, path))}
    rates = [one["throughput_per_s"] for one in known.values()]
    ranges = [one["throughput_range"] for one in known.values()]
    errors = [
        [rate - low for rate, (low, _) in zip(rates, ranges, strict=True)],
        [high - rate for rate, (_, high) in zip(rates, ranges, strict=True)],
    ]
    axes.barh(list(known), rates, xerr=errors, color="tab:blue", capsize=3)
    axes.set_xlabel("tasks per second")
    return bool(known)


def cpu(axes: Axes, found: Figures) -> bool:
    """Seconds of CPU per 1,000 tasks, stacked by kind of process."""
    costs = costs_of(found)
    kinds = dict.fromkeys(kind for by in costs.values() for kind in by)
    left = [0.0] * len(costs)
    for kind in kinds:
        widths = [by.get(kind, 0.0) / 1000 for by in costs.values()]
        axes.barh(list(costs), widths, left=left, label=kind)
        left = [before + width for before, width in zip(left, widths, strict=True)]
    axes.set_xlabel("seconds of CPU per 1,000 tasks")
    if costs:
        axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return bool(costs)


def way(axes: Axes, found: Figures) -> bool:
    """Where the time of one task goes: medians of what passes between one point and the next."""
    hops: Mapping[str, float] = _at(found, ("single", "hops_ms"))
    left = 0.0
    for name, passed in hops.items():
        axes.barh(["one task"], [passed], left=left, label=f"{POINTS[name]}: {passed:.2f}")
        left += passed
    axes.set_xlabel("milliseconds after the submission, medians")
    if hops:
        axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return bool(hops)


def latency(axes: Axes, found: Figures) -> bool:
    """The median and the 99th percentile, on a logarithmic scale."""
    known = {title: of for title, path in _LATENCIES.items() if (of := _at(found, path))}
    for name, color in (("p99", "tab:orange"), ("p50", "tab:blue")):
        axes.barh(list(known), [of[name] for of in known.values()], label=name, color=color)
    axes.set_xscale("log")
    axes.set_xlim(left=1)
    axes.set_xlabel("milliseconds")
    if known:
        axes.legend(fontsize="small")
    return bool(known)


def beside(axes: Axes, found: Figures) -> bool:
    """Tasks per second of meshq and others on the same work, in the same run."""
    sides = with_peers(found)["peers"].get("sides", {})
    rates = {name: one["throughput_per_s"]["median"] for name, one in sides.items()}
    ordered = sorted(rates, key=lambda name: rates[name])
    axes.barh(ordered, [rates[name] for name in ordered], color="tab:blue")
    axes.set_xlabel("tasks per second")
    return bool(rates)


_PICTURES: Mapping[str, Callable[[Axes, Figures], bool]] = {
    "throughput": throughput,
    "cpu": cpu,
    "way": way,
    "latency": latency,
    "peers": beside,
}


def _at(found: Figures, path: tuple[str, ...]) -> Any:
    value: Any = found
    for key in path:
        value = value.get(key, {})
    return value
