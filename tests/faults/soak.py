"""Random faults, one after the other, under one long load: `python -m faults.soak --seed 7`.

Which faults come, in which order, after which pauses, and what each leaves to chance follows from the seed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import random
import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from faults import cases, evidence, report
from faults.play import play
from faults.stage import Setup
from faults.table import Fault, Scene

SECONDS, TASKS = 600.0, 200_000
PAUSES = (1.0, 8.0)
SETTLE = 900.0
_SPARE = 1.05
"""How much more than it has to the load sends: of tasks with one unique key only one is accepted."""
_EVERY = 30.0
# Leases are short so that many of them end.
SETUP = Setup(environment=(("MESHQ_LEASE_TTL", "5"), ("MESHQ_HEARTBEAT_INTERVAL", "1.5")))


@dataclass(frozen=True)
class Step:
    """One fault of a plan: the pause before it, and what decides about chance in it."""

    number: int
    pause: float
    fault: str
    seed: int


def plan(seed: int, names: Sequence[str]) -> Iterator[Step]:
    """The steps that follow from a seed, without end. All faults come before one comes again."""
    chance = random.Random(seed)
    numbers = itertools.count(1)
    while True:
        for name in chance.sample(sorted(names), len(names)):
            pause = round(chance.uniform(*PAUSES), 1)
            yield Step(next(numbers), pause, name, chance.randrange(1 << 32))


def eligible(faults: Mapping[str, Fault]) -> dict[str, Fault]:
    """The faults that can come in any system at any time."""
    return {
        name: fault
        for name, fault in faults.items()
        if fault.soak and not fault.alone and not fault.exempt and not fault.calls_fail and _usual(fault)
    }


def _usual(fault: Fault) -> bool:
    return replace(fault.setup, environment=()) == Setup()


def soak(seed: int, seconds: float, tasks: int, faults: Mapping[str, Fault]) -> Fault:
    """All of it as one fault.

    Args:
        seed: Decides about everything.
        seconds: For how long faults begin.
        tasks: How many have to be accepted.
        faults: What may come.
    """

    async def act(scene: Scene) -> None:
        end = time.monotonic() + seconds
        ticker = asyncio.create_task(_tell(scene))
        try:
            for step in plan(seed, list(faults)):
                await asyncio.sleep(step.pause)
                if time.monotonic() >= end:
                    break
                await scene.system.wait_ready()
                _say(f"{step.number:3} {step.fault}")
                scene.history.mark(f"{step.number} {step.fault}")
                chance = random.Random(step.seed)
                await faults[step.fault].act(replace(scene, chance=chance, short=True))
            await scene.system.wait_ready()
        finally:
            ticker.cancel()

    return Fault("soak", act, SETUP, tasks=_SPARE, rate=_SPARE, settle=SETTLE, least_accepted=tasks)


async def _tell(scene: Scene) -> None:
    management = scene.setup.database(scene.system, "management")
    while True:
        await asyncio.sleep(_EVERY)
        try:
            there = f"{await evidence.open_tasks(management):,} open"
        except OSError as error:
            there = str(error)
        _say(f"    {len(scene.load.accepted):,} accepted, {there}")


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)  # noqa: T201 - a command line's answer


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m faults.soak", description="Random faults under load.")
    add = parser.add_argument
    add("--seconds", type=float, default=SECONDS, help="for how long faults begin (%(default)s)")
    add("--tasks", type=int, default=TASKS, help="tasks at least (%(default)s)")
    add("--seed", type=int, help="decides about everything; made up and printed by default")
    add("--only", nargs="*", metavar="FAULT", help="only these faults")
    add("--plan", action="store_true", help="print how the plan begins, and end")
    add(
        "--report",
        type=Path,
        default=Path(".meshq/faults"),
        help="folder for report and history (%(default)s)",
    )
    options = parser.parse_args(arguments)
    if options.seed is None:
        options.seed = secrets.randbelow(1_000_000) + 1
    return options


async def run(options: argparse.Namespace) -> bool:
    """Soak, and say what came out; returns whether all promises were kept."""
    faults = eligible(cases.load())
    if options.only:
        faults = {name: faults[name] for name in options.only}
    _say(
        f"seed {options.seed}: {options.tasks:,} tasks, faults for {options.seconds:.0f} s, of {len(faults)}"
    )
    fault = soak(options.seed, options.seconds, options.tasks, faults)
    async with SETUP.open() as system:
        line = await play(
            fault,
            system,
            options.seed,
            journal=options.report / "soak.jsonl",
            tasks=options.tasks,
            rate=options.tasks / options.seconds,
        )
    report.write([line], options.report / "soak.json")
    print(f"\n{report.printed([line])}")  # noqa: T201
    return line.kept


def main() -> int:
    """Run; returns the exit code."""
    options = parse()
    if options.plan:
        for step in itertools.islice(plan(options.seed, list(eligible(cases.load()))), 40):
            print(f"{step.number:3} after {step.pause:4} s  {step.fault}")  # noqa: T201
        return 0
    logging.disable()
    return 0 if asyncio.run(run(options)) else 1


if __name__ == "__main__":
    sys.exit(main())
