"""What `meshq bench` has measured, drawn for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.table import Table

from meshq.bench.single import POINTS
from meshq.cli.drawings import table

_TITLES = {
    "accept": "created in bulk, durable",
    "bulk": "created in bulk and run to the end",
    "calls": "created in calls of one task",
    "single": "one task at a time, to its result",
    "events": "from a handler to a subscriber",
}


def report(found: Mapping[str, Any]) -> Group:
    """Rates and latencies, and what one task comes by."""
    return Group(_figures(found), "", _way(found["single"]["points_ms"]))


def _figures(found: Mapping[str, Any]) -> Table:
    rows = []
    for name, title in _TITLES.items():
        one = found[name]
        count = one.get("tasks", one.get("calls"))
        rate = f"{one['throughput_per_s']:,.0f}" if "throughput_per_s" in one else ""
        latency = one.get("latency_ms") or one.get("after_handler_ms") or {}
        rows.append((title, f"{count:,}", rate, *(_ms(latency, name) for name in ("p50", "p99"))))
    return table(["WHAT", "TASKS", "TASKS/S", "P50 MS", "P99 MS"], rows)


def _way(points: Mapping[str, Mapping[str, float]]) -> Table:
    ordered = sorted(points.items(), key=lambda item: item[1]["p50"])
    rows = [(POINTS[point], _ms(of, "p50"), _ms(of, "p99")) for point, of in ordered]
    return table(["ONE TASK, AFTER ITS SUBMISSION", "P50 MS", "P99 MS"], rows)


def _ms(of: Mapping[str, float], name: str) -> str:
    return f"{of[name]:.1f}" if name in of else ""
