"""`python -m meshq.worker`: run the handlers of one or more registries."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from meshq.client.channel import DEFAULT_TARGET, TARGET_VARIABLE
from meshq.contract.limits import DEFAULT_QUEUE
from meshq.contract.runtime import collect_rarely
from meshq.worker import logs
from meshq.worker.registry import load
from meshq.worker.settings import parse_queues
from meshq.worker.worker import Refused, Worker

LEVELS = ("debug", "info", "warning", "error")
STYLES = ("json", "console")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; what it does not say comes from the environment."""
    parser = argparse.ArgumentParser(
        prog="python -m meshq.worker",
        description="Runs tasks with the handlers of one or more registries.",
    )
    add = parser.add_argument
    add("--target", help=f"server, as host:port or xds:///meshq (${TARGET_VARIABLE}, {DEFAULT_TARGET})")
    add(
        "--tasks",
        action="append",
        metavar="MODULE[:REGISTRY]",
        help="registry of handlers; may be repeated (meshq.tasks:registry)",
    )
    add(
        "--queues",
        default=DEFAULT_QUEUE,
        metavar="NAME[=WEIGHT],...",
        help="queues to serve, with commas; weights divide the room (%(default)s)",
    )
    add("--slots", type=int, help="tasks at a time")
    add("--processes", type=int, help="processes for handlers that want one (one per core)")
    add("--prefetch", type=int, help="tasks to hold beyond the slots (as many as end in 0.2 s)")
    add("--id", help="id of the worker, unique among running ones (made up)")
    add("--label", action="append", default=[], metavar="KEY=VALUE", help="label; may be repeated")
    add("--build-id", default="", help="build that runs, for people")
    add(
        "--drain-timeout", type=float, default=30.0, help="seconds for running tasks at the end (%(default)s)"
    )
    add("--log-level", choices=LEVELS, default=os.environ.get("MESHQ_LOG_LEVEL", "info").lower())
    add("--log-format", choices=STYLES, default=os.environ.get("MESHQ_LOG_FORMAT", "json").lower())
    return parser.parse_args(arguments)


def make_worker(options: argparse.Namespace) -> Worker:
    """The worker for a command line.

    Raises:
        ValueError: A value breaks its rule.
        LookupError: There is no such registry.
    """
    return Worker(
        options.target,
        queues=parse_queues(name.strip() for name in options.queues.split(",") if name.strip()),
        slots=options.slots,
        worker_id=options.id,
        tasks=[load(name) for name in options.tasks or ["meshq.tasks"]],
        processes=options.processes,
        prefetch=options.prefetch,
        labels=_labels(options.label),
        build_id=options.build_id,
        drain_timeout=options.drain_timeout,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    options = parse(arguments)
    try:
        worker = make_worker(options)
        logs.configure(options.log_level, options.log_format, worker.settings.worker_id)
        collect_rarely()
        worker.run()
    except (Refused, ValueError, LookupError, TypeError) as error:
        print(f"meshq.worker: {error}", file=sys.stderr)  # noqa: T201 - a command line's answer
        return 1
    return 0


def _labels(pairs: Sequence[str]) -> dict[str, str]:
    labels = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise ValueError(f"label must be KEY=VALUE, not {pair!r}")
        labels[key] = value
    return labels


if __name__ == "__main__":
    sys.exit(main())
