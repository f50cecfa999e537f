"""Measure meshq beside other task queues, on the same work in the same run.

Each side plays alone on the machine, one after the other, round by round, each time on fresh stores. The last
line is everything as one JSON object, by side.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.peers import environment
from bench.peers.catalogue import PEERS, Peer, Setting, Stores
from bench.peers.driver import Driver, SideFailed, cpu_seconds, meshq_side, peer_side
from bench.peers.report import MESHQ, Run, Side, figures, tables
from rich.console import Console

from meshq.local.errors import LocalError

MESHQ_SHARE = 5.0
"""meshq's tasks in a bulk run as a part of what is asked for: with less it is over before it is warm."""
_WARM_UP_PART = 20
_QUICK = {"tasks": 400, "repeat": 1, "calls": 10}


@dataclass(frozen=True, slots=True)
class Entry:
    """A side that takes part; without a peer it is meshq."""

    peer: Peer | None
    setting: Setting

    @property
    def name(self) -> str:
        """As the table has it."""
        return self.peer.name if self.peer else MESHQ

    @property
    def label(self) -> str:
        """With the setting, for the progress."""
        return f"{self.name}, {self.setting.name}"

    @property
    def durable(self) -> str:
        """What survives a crash of the machine."""
        return (self.peer.stores if self.peer else Stores.POSTGRES).value

    @property
    def share(self) -> float:
        """Its tasks as a part of what is asked for."""
        return self.peer.share if self.peer else MESHQ_SHARE

    @contextlib.asynccontextmanager
    async def played(self, venvs: Path) -> AsyncIterator[Driver]:
        """Start it on fresh stores and end it."""
        with _folder() as folder:
            if self.peer is None:
                async with meshq_side(folder) as driver:
                    yield driver
            else:
                python = environment.interpreter(venvs, self.peer.adapter)
                async with peer_side(self.peer, self.setting, python, folder) as driver:
                    yield driver


async def play(entry: Entry, options: argparse.Namespace) -> Run:
    """One run of one side: warm-up, single calls on an idle system, then bulk."""
    tasks = max(1, int(options.tasks * entry.share))
    async with entry.played(options.venvs) as driver:
        await driver.order(f"single {max(1, options.calls // _WARM_UP_PART)}")
        await driver.order(f"bulk {max(1, tasks // _WARM_UP_PART)}")
        single = await driver.order(f"single {options.calls}")
        before = cpu_seconds()
        bulk = await driver.order(f"bulk {tasks}")
        cpu = cpu_seconds() - before
    lost = single["lost"] + bulk["lost"]
    return Run(tasks, bulk["seconds"], cpu, tuple(single["waits_ms"]), lost)


async def compare(console: Console, options: argparse.Namespace) -> list[Side]:
    """All sides, round by round, each round beginning with another."""
    entries = list(_entries(options))
    runs: list[dict[int, Run]] = [{} for _ in entries]
    failures: list[list[str]] = [[] for _ in entries]
    for number in range(options.repeat):
        for place in _turned(range(len(entries)), number):
            label = f"round {number + 1}: {entries[place].label}"
            try:
                runs[place][number] = run = await play(entries[place], options)
            except SideFailed as error:
                failures[place].append(str(error))
                console.print(f"{label}: failed: {error}", highlight=False)
            else:
                said = f"{run.rate:,.0f} tasks/s, p50 {run.wait(50):.1f} ms, lost {run.lost}"
                console.print(f"{label}: {said}", highlight=False)
    return [
        Side(entry.name, entry.setting.name, entry.durable, its, reasons)
        for entry, its, reasons in zip(entries, runs, failures, strict=True)
    ]


def _entries(options: argparse.Namespace) -> Iterator[Entry]:
    yield Entry(None, Setting("as `meshq up` starts it", ()))
    for name in options.peers:
        peer = PEERS[name]
        for setting in peer.settings if options.settings else peer.settings[:1]:
            yield Entry(peer, setting)


def _turned(places: Sequence[int], by: int) -> list[int]:
    start = by % len(places)
    return [*places[start:], *places[:start]]


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    # An unprivileged PostgreSQL has to reach its folder.
    folder = Path(tempfile.mkdtemp(prefix="meshq-peers-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    add = parser.add_argument
    names = ", ".join(PEERS)
    add("peers", nargs="*", metavar="peer", help=f"whom to compare with (default: all): {names}")
    add(
        "--tasks",
        type=int,
        default=20_000,
        help=f"tasks in a bulk run (%(default)s); slow peers get a part, meshq {MESHQ_SHARE:.0f} times it",
    )
    add("--repeat", type=int, default=3, help="rounds (%(default)s)")
    add("--calls", type=int, default=200, help="single calls in a run (%(default)s)")
    add("--settings", action="store_true", help="play each peer in all settings that were tried")
    add("--quick", action="store_true", help="a try with small sizes, whose figures mean nothing")
    add("--json", type=Path, metavar="FILE", help="write the JSON object to a file as well")
    add("--venvs", type=Path, default=Path(".venv-peers"), help="where peers are installed (%(default)s)")
    options = parser.parse_args(arguments)
    options.peers = options.peers or list(PEERS)
    options.venvs = options.venvs.absolute()
    if unknown := [name for name in options.peers if name not in PEERS]:
        parser.error(f"peer must be one of {names}, not {unknown[0]!r}")
    if options.quick:
        vars(options).update(_QUICK)
    return options


def main() -> int:
    """Run the command line and return its exit code: 1 when a side failed or a result was wrong."""
    options = parse()
    os.environ.pop("PYTHONPATH", None)  # our own path is nothing for the processes of the system
    console = Console()
    try:
        sides = asyncio.run(compare(console, options))
    except LocalError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130
    for table in tables(sides):
        console.print(table)
    line = json.dumps(figures(sides))
    if options.json:
        options.json.write_text(line + "\n", encoding="utf-8")
    print(line, flush=True)  # noqa: T201 - the line for programs
    return 1 if any(side.lost or side.failures for side in sides) else 0


if __name__ == "__main__":
    sys.exit(main())
