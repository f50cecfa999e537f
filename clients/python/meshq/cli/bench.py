"""`meshq bench`: how fast a live system is, measured from here."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from meshq.cli.declaring import option
from meshq.cli.errors import doing, missing_extra
from meshq.cli.listing import draw
from meshq.cli.options import DEFAULT_TIMEOUT, Session, with_session

_HINTS = {
    "QUEUE_EXISTS": "measuring takes away all tasks of its queues, so name queues that do not exist",
}


def _number(name: str, help_: str) -> Any:
    return typer.Option(name, min=1, metavar="N", help=help_)


@with_session
def bench(
    session: Session,
    *,
    tasks: Annotated[int, _number("--tasks", "Tasks to create in bulk, and as many to run.")] = 10_000,
    calls: Annotated[int, _number("--calls", "Calls that create one task each.")] = 2_000,
    concurrency: Annotated[int, _number("--concurrency", "Calls at a time.")] = 64,
    queue: Annotated[
        str | None,
        option(
            "--queue",
            "-q",
            metavar="NAME",
            help="What to call the queue that is made for it; it must not exist. By default bench-...",
        ),
    ] = None,
    own_worker: Annotated[
        bool,
        typer.Option(
            "--worker/--no-worker",
            help="Start a worker here; without, others must serve the queue with meshq.tasks and"
            " meshq.bench.handlers.",
        ),
    ] = True,
) -> None:
    """Measure a live system: bulk, calls, one task at a time, events. Takes away what it has made.

    It loads the system as much as it can. Tasks, queue and worker are its own; Ctrl-C cleans up as well.
    """
    try:
        from meshq.bench.live import Sizes, measure  # noqa: PLC0415  (grpc)
    except ModuleNotFoundError as error:
        raise missing_extra("meshq bench", "worker", error) from error
    named = {} if queue is None else {"queue": queue}
    sizes = Sizes(tasks=tasks, calls=calls, concurrency=concurrency, own_worker=own_worker, **named)
    with doing("measure", hints=_HINTS):
        found = asyncio.run(
            measure(
                session.target,
                sizes,
                session.output.say,
                timeout_seconds=session.timeout or DEFAULT_TIMEOUT,
            )
        )
    if session.json:
        session.output.write_json(found)
    else:
        draw(session, found, "bench_drawings.report")
