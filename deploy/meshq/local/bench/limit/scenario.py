"""What the stores could do, beside what the system does with them in the same rounds."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
from rich.table import Table

from meshq.bench.figures import ranged
from meshq.bench.load import FRAME, plain
from meshq.local.bench.limit.calls import FrameCalls, calls_of
from meshq.local.bench.limit.play import Player
from meshq.local.bench.limit.rows import make_frames
from meshq.local.bench.limit.stores import Stores, now_ms, open_stores
from meshq.local.bench.report.page import by_kind
from meshq.local.bench.stage import BulkRun, Outcome, Stage, bulk_run, costs, cpu_seconds, table
from meshq.local.errors import LocalError
from meshq.local.plan import Kind
from meshq.local.system import System

DRIVER: Final = "bench"
"""This process: the client of a bulk run, and whoever plays the calls."""
PLAYING: Final = (Kind.POSTGRES, Kind.SHARD, DRIVER)
"""Those that have something to do in the limit."""
_LEAST_US: Final = 0.01


@dataclass(frozen=True, slots=True)
class Played:
    """Frames that were played.

    Attributes:
        tasks: How many tasks they have.
        seconds: How long it took.
        cpu: Microseconds of CPU per task, by kind of process, of those that had something to do.
    """

    tasks: int
    seconds: float
    cpu: Mapping[str, float]

    @property
    def rate(self) -> float:
        """Tasks per second."""
        return self.tasks / self.seconds


@dataclass(frozen=True, slots=True)
class Round:
    """A bulk run and the limit right after it."""

    bulk: BulkRun
    limit: Played
    bulk_cpu: Mapping[str, float]

    @property
    def fraction(self) -> float:
        """Which part of the limit's throughput the system reaches."""
        return self.bulk.figures.throughput / self.limit.rate

    def cost(self, *kinds: str) -> float:
        """How many times the limit's CPU per task the system takes: of some kinds of processes, or of all."""
        system = sum(self.bulk_cpu.get(kind, 0.0) for kind in kinds or self.bulk_cpu)
        return system / max(sum(self.limit.cpu.get(kind, 0.0) for kind in kinds or self.limit.cpu), _LEAST_US)


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured.

    Attributes:
        rounds: Bulk and limit.
        stages: Each stage alone, by name.
        lost: Tasks of the bulk runs that did not end as they should.
    """

    rounds: Sequence[Round]
    stages: Mapping[str, Played]

    @property
    def lost(self) -> int:
        """Tasks of the bulk runs that did not end as they should."""
        return sum(one.bulk.figures.lost for one in self.rounds)


RATIOS: Final[Mapping[str, Callable[[Round], float]]] = {
    "fraction": lambda one: one.fraction,
    "cost": lambda one: one.cost(),
    "cost_postgres": lambda one: one.cost(Kind.POSTGRES),
    "cost_shards": lambda one: one.cost(Kind.SHARD),
}
"""What the system takes as so many times of what the limit takes."""


async def limit(stage: Stage) -> Outcome:
    """Throughput and CPU per task of the stores alone, and which part of it the system reaches."""
    measured = await measure(stage)
    return Outcome(figures(measured), tables(measured), measured.lost)


async def measure(stage: Stage) -> Measured:
    """Play each stage alone, then rounds of a bulk run and all stages together."""
    # What the components' code says when it starts is not for who reads the tables.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    async with open_stores(stage.system) as stores:
        size = min(FRAME, stage.tasks)
        count = max(1, stage.tasks // size)
        made = make_frames((1 + stage.repeat) * count, stores.ring, now_ms(), size)
        frames = [await calls_of(frame) for frame in made]
        player = Player(stores)
        stages = {
            name: await _played(stage.system, frames[:count], player.alone(play, frames[:count]))
            for name, play in player.stages.items()
        }
        rounds = []
        for begin in range(count, len(frames), count):
            bulk = await bulk_run(stage, plain(count * size))
            chosen = frames[begin : begin + count]
            played = await _played(stage.system, chosen, player.together(chosen))
            rounds.append(Round(bulk, played, by_kind(bulk.cpu)))
        await _check(stores)
    return Measured(rounds, stages)


async def _played(system: System, frames: Sequence[FrameCalls], playing: Awaitable[None]) -> Played:
    before = cpu_seconds(system)
    begun, own = time.perf_counter(), time.process_time()
    await playing
    seconds, own = time.perf_counter() - begun, time.process_time() - own
    # To look at all processes takes time of this one.
    after = {**cpu_seconds(system), DRIVER: before[DRIVER] + own}
    tasks = sum(frame.tasks for frame in frames)
    cpu = {name: (used - before.get(name, 0.0)) * 1e6 / tasks for name, used in after.items()}
    kinds = by_kind(cpu)
    return Played(tasks, seconds, {str(kind): kinds.get(kind, 0.0) for kind in PLAYING})


async def _check(stores: Stores) -> None:
    if left := await stores.left():
        raise LocalError(f"The limit was not measured: {left} tasks have not ended.")


def figures(measured: Measured) -> dict[str, Any]:
    """For programs: medians of the rounds."""
    rounds = measured.rounds
    return {
        "tasks": rounds[0].limit.tasks,
        "lost": measured.lost,
        **ranged("throughput_per_s", [one.limit.rate for one in rounds]),
        **ranged("bulk_throughput_per_s", [one.bulk.figures.throughput for one in rounds]),
        "cpu_us_per_task": costs([one.limit.cpu for one in rounds]),
        "bulk_cpu_us_per_task": costs([one.bulk_cpu for one in rounds]),
        **{name: _spread([ratio(one) for one in rounds]) for name, ratio in RATIOS.items()},
        "stages": {
            name: {"throughput_per_s": round(one.rate, 1), "cpu_us_per_task": _whole(one.cpu)}
            for name, one in measured.stages.items()
        },
    }


def tables(measured: Measured) -> list[Table]:
    """For people."""
    return [_stages(measured.stages), _rounds(measured.rounds), _costs(measured.rounds)]


def _stages(stages: Mapping[str, Played]) -> Table:
    shown = table("limit: each stage alone", "stage", "tasks/s", "postgres µs", "shards µs", "driver µs")
    for name, one in stages.items():
        cells = [f"{one.cpu.get(kind, 0.0):.1f}" for kind in PLAYING]
        shown.add_row(name, f"{one.rate:,.0f}", *cells)
    sums = [f"{sum(one.cpu.get(kind, 0.0) for one in stages.values()):.1f}" for kind in PLAYING]
    shown.add_row("all", "", *sums)
    return shown


def _rounds(rounds: Sequence[Round]) -> Table:
    shown = table(
        "limit: all stages together, and bulk",
        "round",
        "limit tasks/s",
        "bulk tasks/s",
        "fraction",
        "CPU ratio",
    )
    for number, one in enumerate(rounds, 1):
        bulk = one.bulk.figures.throughput
        shown.add_row(
            str(number), f"{one.limit.rate:,.0f}", f"{bulk:,.0f}", f"{one.fraction:.2f}", f"{one.cost():.2f}"
        )
    return shown


def _costs(rounds: Sequence[Round]) -> Table:
    shown = table("CPU per task, medians of the rounds", "kind", "limit µs", "bulk µs")
    limits, bulks = costs([one.limit.cpu for one in rounds]), costs([one.bulk_cpu for one in rounds])
    for kind, cost in bulks.items():
        shown.add_row(kind, f"{limits.get(kind, 0.0):.1f}", f"{cost:.1f}")
    shown.add_row("all", f"{sum(limits.values()):.1f}", f"{sum(bulks.values()):.1f}")
    return shown


def _whole(cpu: Mapping[str, float]) -> dict[str, float]:
    return {kind: round(cost, 1) for kind, cost in cpu.items()}


def _spread(values: Sequence[float]) -> dict[str, float]:
    ascending = sorted(values)
    return {
        "median": round(statistics.median(ascending), 3),
        "lowest": round(ascending[0], 3),
        "highest": round(ascending[-1], 3),
    }
