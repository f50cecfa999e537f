"""`meshq ring`: the shards that queue the tasks, and changing them while everything runs."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from meshq.cli import shapes
from meshq.cli.declaring import option
from meshq.cli.errors import Trouble, doing
from meshq.cli.exits import ExitCode
from meshq.cli.options import Session, with_session

if TYPE_CHECKING:  # imports grpc
    from meshq.client import SyncClient
    from meshq.client.models import Shard

app = typer.Typer(help="Show and change the ring of shards that queue the tasks.")
shards = typer.Typer(help="The former name of `ring`.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The shard's name.", show_default=False)]
AddressArgument = Annotated[
    str,
    typer.Argument(
        metavar="ADDRESS",
        help="host:port, or sentinel://host:port,host:port/primary.",
        show_default=False,
    ),
]

_NAMES = {"shard": "NAME", "shard.shard": "NAME", "shard.address": "ADDRESS", "shard.weight": "--weight"}
_LOOK_SECONDS: Final = 0.5
_HINT: Final = "`meshq ring list` shows how it stands"


@shards.command("list")
@app.command("list")
@with_session
def list_(session: Session) -> None:
    """List the shards with their state and load."""
    with session.client() as client, doing("list the shards"):
        ring = client.shards()
    if session.json:
        for shard in ring.shards:
            session.output.write_json(shapes.record(shard) | {"ring_version": ring.version})
        return
    from meshq.cli import mesh_drawings  # noqa: PLC0415  (rich)

    session.output.draw(mesh_drawings.shards(ring))


@app.command("add")
@with_session
def add(
    session: Session,
    name: NameArgument,
    address: AddressArgument,
    *,
    weight: Annotated[
        int, option("--weight", metavar="N", help="Its part of the keys, 1 to 100; default 1.")
    ] = 1,
) -> None:
    """Take an empty server into the ring. It gets its part of the keys at once; nothing stops."""
    with session.client() as client, doing(f"add shard {name}", names=_NAMES):
        found = client.add_shard(name, address, weight)
    session.output.tell(
        shapes.record(found), f"Shard {name} is in the ring and takes {found.share:.1%} of the keys."
    )


@app.command("set")
@with_session
def set_(
    session: Session,
    name: NameArgument,
    *,
    address: Annotated[
        str | None, option("--address", metavar="ADDRESS", help="Another server, on which it begins anew.")
    ] = None,
    weight: Annotated[
        int | None, option("--weight", metavar="N", help="Its part of the keys, 1 to 100.")
    ] = None,
) -> None:
    """Change a shard's address or weight."""
    if address is None and weight is None:
        raise typer.BadParameter("say what to set, such as --weight 2")
    names = _NAMES | {"shard.address": "--address"}
    with session.client() as client, doing(f"set shard {name}", names=names):
        found = client.update_shard(name, address=address, weight=weight)
    session.output.tell(shapes.record(found), f"Shard {name} is set and takes {found.share:.1%} of the keys.")


@app.command("drain")
@with_session
def drain(
    session: Session,
    name: NameArgument,
    *,
    wait: Annotated[
        bool, typer.Option("--wait", help="Return when it is empty, or after --timeout seconds.")
    ] = False,
) -> None:
    """Let a shard take no more tasks: what waits there moves to the others, what workers have ends there."""
    with session.client() as client, doing(f"drain shard {name}", names=_NAMES):
        found = client.drain_shard(name)
        if wait:
            found = _emptied(session, client, name)
    if found.tasks_to_move + found.leased:
        left = f"{found.tasks_to_move:,} tasks are still to be moved, {found.leased:,} are at workers."
        session.output.tell(shapes.record(found), f"Shard {name} takes no new tasks; {left}")
    else:
        session.output.tell(shapes.record(found), f"Shard {name} is drained and empty.")


@app.command("activate")
@with_session
def activate(session: Session, name: NameArgument) -> None:
    """End what `drain` began."""
    with session.client() as client, doing(f"activate shard {name}", names=_NAMES):
        found = client.activate_shard(name)
    session.output.tell(shapes.record(found), f"Shard {name} takes {found.share:.1%} of the keys.")


@app.command("remove")
@with_session
def remove(
    session: Session,
    name: NameArgument,
    *,
    force: Annotated[
        bool,
        typer.Option("--force", help="Remove a shard that is OUT: its tasks are with the others already."),
    ] = False,
) -> None:
    """Take a drained, empty shard out of the ring. Its server can be stopped then."""
    with session.client() as client, doing(f"remove shard {name}", names=_NAMES):
        found = client.remove_shard(name, force=force)
    session.output.tell(shapes.record(found), f"Shard {name} has left the ring.")


def _emptied(session: Session, client: SyncClient, name: str) -> Shard:
    """The shard once nothing is on it; raises `Trouble` when that takes longer than --timeout."""
    end = math.inf if session.timeout is None else time.monotonic() + session.timeout
    while True:
        found = next((shard for shard in client.shards().shards if shard.shard == name), None)
        if found is None or found.state == "ACTIVE":
            raise Trouble(f"Shard {name} is not draining any more", ExitCode.CONFLICT, _HINT)
        if found.state == "DRAINING" and not found.ready + found.delayed + found.leased:
            return found
        if time.monotonic() > end:
            raise Trouble(f"Shard {name} is not empty in time", ExitCode.UNAVAILABLE, _HINT)
        time.sleep(_LOOK_SECONDS)
