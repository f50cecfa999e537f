"""Measure meshq beside other task queues, on the same work in the same run.

Each side plays alone on the machine, one after the other, round by round, each time on fresh stores. Before
that each peer is tried in every setting that makes sense, and keeps the best. The last line is everything as
one JSON object, by side.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.peers.catalogue import PEERS
from bench.peers.play import MESHQ_SHARE, Sizes, choose, entries, rounds
from bench.peers.report import Side, figures, tables
from rich.console import Console

from meshq.local.errors import LocalError

BEST, FIRST, ALL = "best", "first", "all"
_WIDTH = 160
_QUICK = {"tasks": 400, "repeat": 1, "calls": 10, "settings": FIRST}


async def compare(console: Console, options: argparse.Namespace) -> list[Side]:
    """Play everything that the options say."""
    say = functools.partial(console.print, highlight=False, markup=False, soft_wrap=True)
    sizes = Sizes(options.tasks, options.calls)
    sides = entries(options.peers, all_settings=options.settings == ALL)
    if options.settings == BEST:
        await choose(sides, sizes, options.venvs, say)
    await rounds(sides, options.repeat, sizes, options.venvs, say)
    return [side.side() for side in sides]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    add = parser.add_argument
    names = ", ".join(PEERS)
    tasks = f"slow peers get a part, meshq {MESHQ_SHARE:.0f} times it"
    add("peers", nargs="*", metavar="peer", help=f"whom to compare with (default: all): {names}")
    add("--tasks", type=int, default=20_000, help=f"tasks in a bulk run (%(default)s); {tasks}")
    add("--repeat", type=int, default=3, help="rounds (%(default)s)")
    add("--calls", type=int, default=200, help="single calls in a run (%(default)s)")
    settings = "which settings play: the best of a trial, the first without one, or all (%(default)s)"
    add("--settings", choices=(BEST, FIRST, ALL), default=BEST, help=settings)
    add("--quick", action="store_true", help="small sizes and no trial; the figures mean nothing")
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
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # workers of workers must not stay behind
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH  # of a log, which would else be narrow
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
