"""The regression guard: what the system takes beside what its stores take for the same rows in the same run.

Seconds say little on a machine of unknown speed with other load, ratios much more: the limit is measured
right after each bulk run, on the same servers. It fails when a ratio leaves its bounds, and the tables say
where the time goes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import uvloop
from rich.console import Console

from meshq.local.bench.__main__ import SCENARIOS, bench
from meshq.local.bench.options import parse
from meshq.local.errors import LocalError

_WORDS: Final = ("limit", "single", "--tasks", "4000", "--repeat", "3", "--calls", "50")


class Bound(NamedTuple):
    """What the median of a ratio may be.

    Attributes:
        ratio: Its name in the figures of `limit`.
        what: What it compares with the limit.
        least: It must not be lower.
        most: It must not be higher.
    """

    ratio: str
    what: str
    least: float = 0.0
    most: float = float("inf")

    def broken(self, figures: Mapping[str, Any]) -> str | None:
        """What to say when it is out of bounds."""
        found = figures[self.ratio]["median"]
        if self.least <= found <= self.most:
            return None
        expected = f"at least {self.least:g}" if found < self.least else f"at most {self.most:g}"
        return f"{self.what} is {found:.2f} times that of the limit, and should be {expected}"


# Found on two cores, in medians of three rounds: 2.5 to 3.4 for all processes, 1.1 to 1.3 for PostgreSQL and
# for the shards, 0.26 to 0.40 for the throughput. When all was thirty times slower, single rounds had 5.3 to
# 9.9, 0.8 to 3.1, 1.8 to 2.7 and 0.09 to 0.30, with a system that took half as much again as now: slow
# systems work in small frames.
BOUNDS: Final = (
    Bound("cost", "the CPU per task of all processes", most=8.0),
    Bound("cost_postgres", "the CPU per task of PostgreSQL", most=3.0),
    Bound("cost_shards", "the CPU per task of the shards", most=3.0),
    Bound("fraction", "the throughput of bulk", least=0.1),
)


def complaints(figures: Mapping[str, Any]) -> list[str]:
    """What is wrong with the figures of `limit`, and where the time went if something is."""
    found = [broken for bound in BOUNDS if (broken := bound.broken(figures))]
    if figures["lost"]:
        found.insert(0, f"{figures['lost']} tasks did not end as they should")
    return [*found, _where(figures)] if found else []


def _where(figures: Mapping[str, Any]) -> str:
    limit, bulk = figures["cpu_us_per_task"], figures["bulk_cpu_us_per_task"]
    parts = (
        f"{kind} {us:.0f}" + (f" ({limit[kind]:.0f})" if kind in limit else "") for kind, us in bulk.items()
    )
    return f"CPU per task, in brackets that of the limit, in µs: {', '.join(parts)}"


def main() -> int:
    """Measure, and return the exit code."""
    options = parse(SCENARIOS, (), _WORDS)
    try:
        outcomes = uvloop.run(bench(Console(), options))
    except LocalError as error:
        found = [str(error)]
    else:
        found = complaints(outcomes["limit"].figures)
    for complaint in found:
        print(f"bench-smoke: {complaint}", file=sys.stderr)  # noqa: T201
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
