"""`meshq queue`: the queues and their figures."""

from __future__ import annotations

from typing import Annotated

import typer

from meshq.cli.errors import doing
from meshq.cli.listing import show, show_many
from meshq.cli.options import Session, with_session

app = typer.Typer(help="Show the queues.")


@app.command("list")
@with_session
def list_(session: Session) -> None:
    """List the queues with their figures."""
    with session.client() as client, doing("list the queues"):
        found = tuple(client.queues())
    show_many(session, found, "queues", "There are no queues; the first task of a queue creates it.")


@app.command("get")
@with_session
def get(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The queue's name.", show_default=False)],
) -> None:
    """Show everything about a queue."""
    with session.client() as client, doing(f"get queue {name}"):
        found = client.queue(name)
    show(session, found, "queue")
