"""`meshq worker`: the workers that are connected, and one that runs here."""

from __future__ import annotations

from typing import Annotated

import typer

from meshq.cli.errors import doing
from meshq.cli.listing import show, show_many
from meshq.cli.options import Session, with_session

app = typer.Typer(help="Show the workers, or run one.")


@app.command("list")
@with_session
def list_(session: Session) -> None:
    """List the workers that are connected, or polled within the last minute."""
    with session.client() as client, doing("list the workers"):
        found = tuple(client.workers())
    show_many(session, found, "workers", "No worker is connected; `meshq worker run` starts one.")


@app.command("get")
@with_session
def get(
    session: Session,
    worker_id: Annotated[str, typer.Argument(metavar="ID", help="The worker's id.", show_default=False)],
) -> None:
    """Show everything about a worker."""
    with session.client() as client, doing(f"get worker {worker_id}"):
        found = client.worker(worker_id)
    show(session, found, "worker")
