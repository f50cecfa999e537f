"""The scenarios, and playing them on a fresh system."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import uvloop
from rich.console import Console

from meshq.contract.runtime import GRPC_EXPERIMENTS, GRPC_FORKS, READ_IN_PLACE

os.environ.setdefault(GRPC_EXPERIMENTS, READ_IN_PLACE)
os.environ.setdefault(GRPC_FORKS, "0")

from meshq.bench import handlers
from meshq.bench.load import plain
from meshq.client import Client
from meshq.contract.errors import MeshqError
from meshq.local.bench.bulk import bulk
from meshq.local.bench.creating import accepted, calls
from meshq.local.bench.database import timed
from meshq.local.bench.delay import QUEUE as DELAY_QUEUE
from meshq.local.bench.delay import delay
from meshq.local.bench.latency import HALF_QUEUE, SINGLE_QUEUE, half, single
from meshq.local.bench.limit.costs import costs
from meshq.local.bench.limit.scenario import limit
from meshq.local.bench.limits import QUEUES as LIMITED_QUEUES
from meshq.local.bench.limits import limits
from meshq.local.bench.machine import HostShare, machine
from meshq.local.bench.options import SIZES, parse
from meshq.local.bench.overtaking import fairness, priority
from meshq.local.bench.report.page import written
from meshq.local.bench.resting import idle, memory
from meshq.local.bench.ring import QUEUE as RING_QUEUE
from meshq.local.bench.ring import ring
from meshq.local.bench.scaling import scaling
from meshq.local.bench.stage import Outcome, Scenario, Stage, bulk_run
from meshq.local.bench.starting import start
from meshq.local.bench.waiting import BACKLOG_QUEUE, backlog
from meshq.local.bench.watching import EVENTS_QUEUE, events
from meshq.local.bench.working import worker
from meshq.local.errors import LocalError
from meshq.local.plan import Kind, ProcessPlan, Size, SystemPlan, make_plan
from meshq.local.settings import LocalSettings
from meshq.local.system import System

SCENARIOS: dict[str, Scenario] = {
    "idle": idle,
    "single": single,
    "calls": calls,
    "half": half,
    "events": events,
    "bulk": bulk,
    "accept": accepted,
    "worker": worker,
    "start": start,
    "delay": delay,
    "limits": limits,
    "fairness": fairness,
    "priority": priority,
    "ring": ring,
    "limit": limit,
    "costs": costs,
    "scaling": scaling,
    "memory": memory,
    "backlog": backlog,
}
"""In the order in which `all` plays them: first what the remains of others would disturb."""
USUAL = ("bulk", "single")
QUEUES = (
    "default",
    SINGLE_QUEUE,
    HALF_QUEUE,
    EVENTS_QUEUE,
    BACKLOG_QUEUE,
    DELAY_QUEUE,
    *LIMITED_QUEUES,
    RING_QUEUE,
    "bench-fairness",
    "bench-priority",
)
WARM_UP = 2_000


def served(
    data: Path, edge: int, ports: Mapping[str, int], settings: LocalSettings, size: Size
) -> SystemPlan:
    """The usual system, whose workers serve the queues and task types of all scenarios."""
    plan = make_plan(data, edge, ports, settings, size)
    words = ("--tasks", handlers.__name__, "--queues", ",".join(QUEUES))
    changes: dict[Kind, Callable[[ProcessPlan], ProcessPlan]] = {
        Kind.WORKER: lambda one: replace(one, command=(*one.command, *words)),
        Kind.POSTGRES: timed,
    }
    processes = tuple(changes.get(one.kind, _as_it_is)(one) for one in plan.processes)
    return replace(plan, processes=processes)


def _as_it_is(plan: ProcessPlan) -> ProcessPlan:
    return plan


async def bench(console: Console, options: argparse.Namespace) -> dict[str, Outcome]:
    """Start a fresh system, play the scenarios on it, stop it."""
    outcomes = {}
    async with System(ephemeral=True, port=0, planner=served) as system:
        os.environ.update(system.environment)
        target = "xds:///meshq" if options.via == "mesh" else system.edge
        async with Client(target, timeout=60) as client:
            stage = Stage(client, system, **{name: getattr(options, name) for name in SIZES})
            await bulk_run(stage, plain(min(options.tasks, WARM_UP)))
            for name in options.scenarios:
                host = HostShare()
                try:
                    outcome = await SCENARIOS[name](stage)
                except (LocalError, MeshqError, TimeoutError) as error:
                    # What the others took an hour to measure is not to be lost with it.
                    console.print(f"{name} failed: {type(error).__name__}: {error}", markup=False)
                    continue
                figures = {**outcome.figures, "host_took": round(host.so_far(), 3)}
                outcomes[name] = replace(outcome, figures=figures)
                for table in outcomes[name].tables:
                    console.print(table)
    return outcomes


def main() -> int:
    """Run the command line and return its exit code."""
    options = parse(SCENARIOS, USUAL)
    try:
        outcomes = uvloop.run(bench(Console(), options))
    except LocalError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130
    found = {name: outcome.figures for name, outcome in outcomes.items()} | {"machine": machine()}
    line = json.dumps(found)
    if options.json:
        options.json.write_text(line + "\n", encoding="utf-8")
    if options.report:
        for said in written(options.report, found):
            print(said)  # noqa: T201
    print(line, flush=True)  # noqa: T201 - the line for programs
    failed = len(outcomes) < len(set(options.scenarios))
    return 1 if failed or any(outcome.lost for outcome in outcomes.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
