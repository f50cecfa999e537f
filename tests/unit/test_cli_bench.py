"""How `meshq bench` draws what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from meshq.cli.bench_drawings import report
from meshq.cli.terminal import console

FOUND: dict[str, Any] = {
    "accept": {"tasks": 10_000, "throughput_per_s": 23_456.7},
    "bulk": {"tasks": 10_000, "throughput_per_s": 12_345.6, "latency_ms": {"p50": 300.0, "p99": 600.0}},
    "calls": {"tasks": 2_000, "throughput_per_s": 2_222.0, "latency_ms": {"p50": 20.0, "p99": 40.0}},
    "single": {
        "calls": 100,
        "latency_ms": {"p50": 4.5, "p99": 9.0},
        "points_ms": {"event": {"p50": 4.0, "p99": 8.0}, "arrived": {"p50": 0.5, "p99": 1.0}},
    },
    "events": {"tasks": 100, "after_handler_ms": {"p50": 2.0, "p99": 3.0}},
}


def test_rates_and_latencies_stand_in_one_table_and_the_way_in_order_below(
    tmp_path: Path,
) -> None:
    path = tmp_path / "report"
    with path.open("w") as file:
        console(file, color=False).print(report(FOUND))
    lines = [" ".join(line.split()) for line in path.read_text().splitlines()]
    assert lines[1:6] == [
        "created in bulk, durable 10,000 23,457",
        "created in bulk and run to the end 10,000 12,346 300.0 600.0",
        "created in calls of one task 2,000 2,222 20.0 40.0",
        "one task at a time, to its result 100 4.5 9.0",
        "from a handler to a subscriber 100 2.0 3.0",
    ]
    assert lines[-2:] == ["at management 0.5 1.0", "a subscriber hears of the outcome 4.0 8.0"]
