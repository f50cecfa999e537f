"""`meshq worker`: the workers that are connected, and one that runs here."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meshq.cli import inputs
from meshq.cli.declaring import option, pairs
from meshq.cli.errors import Trouble, doing, missing_extra
from meshq.cli.exits import ExitCode
from meshq.cli.listing import show, show_many
from meshq.cli.options import Session, with_session

if TYPE_CHECKING:  # imports grpc
    from meshq.worker import TaskRegistry, Worker

BUILT_IN = "meshq.tasks"

app = typer.Typer(help="Show the workers, or run one.")


@app.command("list")
@with_session
def list_(session: Session) -> None:
    """List the workers that are connected, or polled within the last minute."""
    with session.client() as client, doing("list the workers"):
        found = tuple(client.workers())
    show_many(
        session, found, "mesh_drawings.workers", "No worker is connected; `meshq worker run` starts one."
    )


@app.command("get")
@with_session
def get(
    session: Session,
    worker_id: Annotated[str, typer.Argument(metavar="ID", help="The worker's id.", show_default=False)],
) -> None:
    """Show everything about a worker."""
    with session.client() as client, doing(f"get worker {worker_id}"):
        found = client.worker(worker_id)
    show(session, found, "mesh_drawings.worker")


@app.command("run")
@with_session
def run(
    session: Session,
    modules: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODULE[:REGISTRY]",
            help="Python modules whose registry of handlers to serve; by default the built-in task types.",
            show_default=False,
        ),
    ] = None,
    *,
    queue: Annotated[
        list[str] | None,
        option(
            "--queue",
            "-q",
            metavar="NAME[=WEIGHT]",
            help="A queue to serve; repeatable. Weights divide the worker's room between queues.",
        ),
    ] = None,
    slots: Annotated[
        int | None,
        typer.Option("--slots", min=1, metavar="N", help="Tasks at a time; default 100.", show_default=False),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            "--processes",
            min=1,
            metavar="N",
            help="Processes for handlers that want one; default one per core.",
            show_default=False,
        ),
    ] = None,
    worker_id: Annotated[
        str | None,
        option("--id", metavar="ID", help="The worker's id; made up by default."),
    ] = None,
    label: Annotated[
        list[str] | None,
        pairs("--label", help="A label, for people; repeatable."),
    ] = None,
    drain_timeout: Annotated[
        float,
        typer.Option("--drain-timeout", min=0, metavar="SECONDS", help="What running tasks get at the end."),
    ] = 30.0,
) -> None:
    """Run a worker until Ctrl-C, which lets running tasks end; a second Ctrl-C gives them up.

    What happens is logged to stderr, with --json as one JSON object a line.
    """
    try:
        from meshq.worker import Refused, Worker, logs  # noqa: PLC0415  (grpc)
        from meshq.worker.settings import parse_queues  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise missing_extra("meshq worker run", "worker", error) from error
    registries = _registries(modules or [BUILT_IN])
    labels = inputs.parse_pairs(label or (), what="a label")
    try:
        worker: Worker = Worker(
            session.target,
            queues=parse_queues(queue or ()),
            slots=slots,
            processes=processes,
            worker_id=worker_id,
            tasks=registries,
            labels=labels,
            drain_timeout=drain_timeout,
        )
        logs.configure("info", "json" if session.json else "console", worker.settings.worker_id)
        worker.run()
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    except Refused as error:
        raise Trouble(f"The server refused the worker: {error}", ExitCode.CONFLICT) from error


def _registries(names: Sequence[str]) -> list[TaskRegistry]:
    """The registries in the modules of these names; those of the current folder are found as well."""
    from meshq.worker.registry import load  # noqa: PLC0415  (grpc)

    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    found = []
    for name in names:
        try:
            found.append(load(name))
        except LookupError as error:
            raise typer.BadParameter(f"there are no tasks at {error}") from error
        except Exception as error:
            raise Trouble(
                f"The module {name.partition(':')[0]} cannot be imported: {type(error).__name__}: {error}",
                ExitCode.USAGE,
                "MESHQ_TRACEBACK=1 in the environment shows where",
            ) from error
    return found
