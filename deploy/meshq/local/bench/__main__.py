"""Measure the whole system on this machine.

Results are stored and PostgreSQL syncs to disk, as in production. Machines are noisy, so runs are repeated;
the last line is everything as one JSON object, by scenario.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from meshq.bench.load import plain
from meshq.client import Client
from meshq.local.bench.bulk import bulk, single
from meshq.local.bench.delay import QUEUE as DELAY_QUEUE
from meshq.local.bench.delay import delay
from meshq.local.bench.limits import QUEUES as LIMITED_QUEUES
from meshq.local.bench.limits import limits
from meshq.local.bench.overtaking import fairness, priority
from meshq.local.bench.ring import QUEUE as RING_QUEUE
from meshq.local.bench.ring import ring
from meshq.local.bench.stage import Outcome, Scenario, Stage, bulk_run
from meshq.local.errors import LocalError
from meshq.local.plan import Kind, Size, SystemPlan, make_plan
from meshq.local.settings import LocalSettings
from meshq.local.system import System

SCENARIOS: dict[str, Scenario] = {
    "bulk": bulk,
    "single": single,
    "delay": delay,
    "limits": limits,
    "fairness": fairness,
    "priority": priority,
    "ring": ring,
}
USUAL = ("bulk", "single")
QUEUES = ("default", DELAY_QUEUE, *LIMITED_QUEUES, RING_QUEUE, "bench-fairness", "bench-priority")
WARM_UP = 2_000


def served(
    data: Path, edge: int, ports: Mapping[str, int], settings: LocalSettings, size: Size
) -> SystemPlan:
    """The usual system, whose workers serve the queues of all scenarios."""
    plan = make_plan(data, edge, ports, settings, size)
    words = ("--queues", ",".join(QUEUES))
    processes = tuple(
        replace(one, command=(*one.command, *words)) if one.kind is Kind.WORKER else one
        for one in plan.processes
    )
    return replace(plan, processes=processes)


async def bench(console: Console, options: argparse.Namespace) -> dict[str, Outcome]:
    """Start a fresh system, play the scenarios on it, stop it."""
    outcomes = {}
    async with System(ephemeral=True, port=0, planner=served) as system:
        os.environ.update(system.environment)
        target = "xds:///meshq" if options.via == "mesh" else system.edge
        async with Client(target, timeout=60) as client:
            stage = Stage(client, system, options.tasks, options.repeat, options.backlog)
            await bulk_run(stage, plain(min(options.tasks, WARM_UP)))
            for name in options.scenarios:
                outcomes[name] = await SCENARIOS[name](stage)
                for table in outcomes[name].tables:
                    console.print(table)
    return outcomes


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m meshq.local.bench", description=__doc__)
    names = ", ".join(SCENARIOS)
    parser.add_argument(
        "scenarios",
        nargs="*",
        metavar="scenario",
        default=USUAL,
        help=f"what to measure: {names}, or all (default: {' '.join(USUAL)})",
    )
    parser.add_argument("--tasks", type=int, default=20_000, help="tasks in each bulk run (%(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="bulk runs (%(default)s)")
    parser.add_argument(
        "--backlog",
        type=int,
        default=100_000,
        help="tasks that wait in delay, fairness, priority (%(default)s)",
    )
    parser.add_argument("--via", choices=("edge", "mesh"), default="edge", help="how the client comes in")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the JSON object to a file as well")
    options = parser.parse_args()
    if "all" in options.scenarios:
        options.scenarios = list(SCENARIOS)
    for name in options.scenarios:
        if name not in SCENARIOS:
            parser.error(f"scenario must be one of {names} or all, not {name!r}")
    return options


def main() -> int:
    """Run the command line and return its exit code."""
    options = parse()
    try:
        outcomes = asyncio.run(bench(Console(), options))
    except LocalError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130
    line = json.dumps({name: outcome.figures for name, outcome in outcomes.items()})
    if options.json:
        options.json.write_text(line + "\n", encoding="utf-8")
    print(line, flush=True)  # noqa: T201 - the line for programs
    return 1 if any(outcome.lost for outcome in outcomes.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
