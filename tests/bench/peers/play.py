"""Rounds in which every side plays once, and before them the trials that find each peer's best setting."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.peers import environment
from bench.peers.catalogue import PEERS, Peer, Setting, Stores
from bench.peers.driver import Driver, SideFailed, cpu_seconds, meshq_side, peer_side
from bench.peers.report import MESHQ, Run, Side

MESHQ_SHARE = 5.0
"""meshq's tasks in a bulk run as a part of what is asked for: with less it is over before it is warm."""
WARM_UP = 20
"""The warm-up is this part of what is measured."""
TRIAL = 2
"""So is a trial; in a shorter one, sides that are slow to get going look all alike."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is played.

    Attributes:
        tasks: Tasks in a bulk run, of a side whose share is 1.
        calls: Single calls in a run.
    """

    tasks: int
    calls: int


@dataclass(slots=True)
class Entry:
    """A side that takes part, and what came of it so far.

    Attributes:
        peer: None for meshq.
        setting: In which it plays.
        tried: Tasks per second in the trials, by setting.
        runs: By round.
        failures: Of the rounds that are missing.
    """

    peer: Peer | None
    setting: Setting
    tried: dict[str, float] = field(default_factory=dict)
    runs: dict[int, Run] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        """What is said of it while it plays."""
        return f"{self.peer.name if self.peer else MESHQ}, {self.setting.name}"

    def side(self) -> Side:
        """Everything for the report."""
        name, stores = (self.peer.name, self.peer.stores) if self.peer else (MESHQ, Stores.POSTGRES)
        return Side(name, self.setting.name, stores.value, self.runs, self.failures, self.tried)

    @contextlib.asynccontextmanager
    async def started(self, venvs: Path) -> AsyncIterator[Driver]:
        """Start it on fresh stores and end it."""
        with _folder() as folder:
            if self.peer is None:
                async with meshq_side(folder) as driver:
                    yield driver
            else:
                python = environment.interpreter(venvs, self.peer.adapter)
                async with peer_side(self.peer, self.setting, python, folder) as driver:
                    yield driver

    async def play(self, sizes: Sizes, venvs: Path) -> Run:
        """One run: warm-up, single calls on an idle system, then bulk."""
        tasks = max(1, int(sizes.tasks * (self.peer.share if self.peer else MESHQ_SHARE)))
        async with self.started(venvs) as driver:
            await driver.order(f"single {max(1, sizes.calls // WARM_UP)}")
            await driver.order(f"bulk {max(1, tasks // WARM_UP)}")
            single = await driver.order(f"single {sizes.calls}")
            before = cpu_seconds()
            bulk = await driver.order(f"bulk {tasks}")
            cpu = cpu_seconds() - before
        return Run(tasks, bulk["seconds"], cpu, tuple(single["waits_ms"]), single["lost"] + bulk["lost"])


def entries(names: Iterable[str], *, all_settings: bool = False) -> list[Entry]:
    """meshq and the peers of these names, in their first settings or in all."""
    made = [Entry(None, Setting("as `meshq up` starts it", ()))]
    for name in names:
        settings = PEERS[name].settings if all_settings else PEERS[name].settings[:1]
        made += [Entry(PEERS[name], setting) for setting in settings]
    return made


async def choose(sides: Sequence[Entry], sizes: Sizes, venvs: Path, say: Say) -> None:
    """Try every setting of every peer in a short run; the one with the most throughput is kept."""
    short = Sizes(max(1, sizes.tasks // TRIAL), max(1, sizes.calls // TRIAL))
    for side in sides:
        trials = [Entry(side.peer, setting) for setting in (side.peer.settings if side.peer else ())]
        for trial in trials:
            await _attempt(trial, 0, short, venvs, say)
        good = [trial for trial in trials if trial.runs and not trial.runs[0].lost]
        side.tried = {trial.setting.name: trial.runs[0].rate for trial in good}
        if good:
            side.setting = max(good, key=lambda trial: trial.runs[0].rate).setting


async def rounds(sides: Sequence[Entry], count: int, sizes: Sizes, venvs: Path, say: Say) -> None:
    """Let all sides play, round by round, each round beginning with another."""
    for number in range(count):
        start = number % len(sides)
        for side in [*sides[start:], *sides[:start]]:
            await _attempt(side, number, sizes, venvs, say)


async def _attempt(side: Entry, number: int, sizes: Sizes, venvs: Path, say: Say) -> None:
    try:
        side.runs[number] = run = await side.play(sizes, venvs)
    except SideFailed as error:
        side.failures.append(str(error))
        say(f"{side.label}: failed: {error}")
    else:
        said = f"{run.rate:,.0f} tasks/s, p50 {run.wait(50):.1f} ms, lost {run.lost}"
        say(f"{side.label}: {run.tasks:,} tasks, {said}")


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    # An unprivileged PostgreSQL has to reach its folder.
    folder = Path(tempfile.mkdtemp(prefix="meshq-peers-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
