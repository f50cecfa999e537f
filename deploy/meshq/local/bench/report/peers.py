"""What `make bench-peers` has measured, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CELERY = "celery"


def with_peers(found: Mapping[str, Any]) -> dict[str, Any]:
    """The figures with those of the comparison put together as `peers`, if there are any.

    Of the ratios to several settings of one peer the lowest counts.
    """
    sides = {name: one for name, one in found.items() if isinstance(one, Mapping) and _is_side(one)}
    ratios = {name: one["meshq_ratio"] for name, one in sides.items() if "meshq_ratio" in one}
    celery = [ratio for name, ratio in ratios.items() if name.startswith(CELERY)]
    peers: dict[str, Any] = {"sides": sides} if sides else {}
    if celery:
        peers["celery"] = min(celery, key=_median)
    if ratios:
        peers["fastest"] = min(ratios.values(), key=_median)
    return {**found, "peers": peers}


def lines(peers: Mapping[str, Any]) -> list[str]:
    """The comparison as a table, the fastest first."""
    sides = sorted(peers.get("sides", {}).items(), key=lambda item: -_median(item[1]["throughput_per_s"]))
    if not sides:
        return []
    head = [
        "| Side | What survives a crash | Tasks/s | meshq is | p50 ms | p99 ms | CPU s per 1,000 |",
        "|---|---|---|---|---|---|---|",
    ]
    return head + [f"| {name} | {' | '.join(_cells(one))} |" for name, one in sides]


def _cells(one: Mapping[str, Any]) -> list[str]:
    return [
        one["durable"],
        _spread(one["throughput_per_s"], 0),
        f"{_spread(one['meshq_ratio'], 1)} times" if "meshq_ratio" in one else "",
        *(f"{_median(one[name]):.1f}" for name in ("p50_ms", "p99_ms")),
        f"{_median(one['cpu_s_per_1000']):.3f}",
    ]


def _is_side(one: Mapping[str, Any]) -> bool:
    return {"durable", "throughput_per_s"} <= one.keys()


def _median(value: Mapping[str, Any]) -> float:
    return float(value["median"])


def _spread(value: Mapping[str, Any], digits: int) -> str:
    low, high = value["range"]
    return f"{value['median']:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"
