"""The command line of `make bench`."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from pathlib import Path

SIZES = {
    "tasks": (100_000, "tasks in each bulk run"),
    "repeat": (3, "runs of each scenario that is repeated"),
    "backlog": (100_000, "tasks that wait in delay, fairness, priority"),
    "many": (1_000_000, "tasks that wait in backlog, and run in each half of memory"),
    "calls": (5_000, "calls in each run of calls"),
    "concurrency": (64, "callers at a time in calls"),
    "rate": (6_000, "tasks per second in half"),
    "watches": (5_000, "watches at a time in events"),
    "seconds": (60, "how long the idle system is looked at"),
}
"""What changes how long it all takes: the default, and what it is for."""


def parse(
    scenarios: Collection[str], usual: Sequence[str], words: Sequence[str] | None = None
) -> argparse.Namespace:
    """Read the command line.

    Args:
        scenarios: All that there are.
        usual: Those that are played unless others are named.
        words: The arguments; by default those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m meshq.local.bench", description=_ABOUT)
    names = ", ".join(scenarios)
    parser.add_argument(
        "scenarios",
        nargs="*",
        metavar="scenario",
        default=usual,
        help=f"what to measure: {names}, or all (default: {' '.join(usual)})",
    )
    for name, (default, about) in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{about} (%(default)s)")
    parser.add_argument("--via", choices=("edge", "mesh"), default="edge", help="how the client comes in")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the JSON object to a file as well")
    parser.add_argument(
        "--report",
        type=Path,
        metavar="PAGE",
        help="fill a page with it, such as docs/performance.md",
    )
    options = parser.parse_args(words)
    if "all" in options.scenarios:
        options.scenarios = list(scenarios)
    for name in options.scenarios:
        if name not in scenarios:
            parser.error(f"scenario must be one of {names} or all, not {name!r}")
    return options


_ABOUT = """Measure the whole system on this machine. Results are stored and PostgreSQL syncs to disk, as in
production. Machines are noisy, so runs are repeated; the last line is everything as one JSON object, by
scenario."""
