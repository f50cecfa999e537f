"""`meshq service` and `instance`: what the mesh consists of; and `meshq version`."""

from __future__ import annotations

import platform
from typing import Annotated

import typer

from meshq.cli.declaring import option
from meshq.cli.errors import doing
from meshq.cli.listing import show_many
from meshq.cli.options import Session, with_session

services = typer.Typer(help="Show the gRPC services of the mesh.")
instances = typer.Typer(help="Show the processes of the mesh.")


@services.command("list")
@with_session
def list_services(session: Session) -> None:
    """List the gRPC services that are served, and by how many instances."""
    with session.client() as client, doing("list the services"):
        found = client.services()
    show_many(session, found, "mesh_drawings.services", "There are no services.")


@instances.command("list")
@with_session
def list_instances(
    session: Session,
    component: Annotated[
        str,
        option(
            "--component", metavar="NAME", help="Only instances of this component, such as meshq.execution."
        ),
    ] = "",
) -> None:
    """List the processes that make up the mesh."""
    with session.client() as client, doing("list the instances"):
        found = client.instances(component)
    show_many(session, found, "mesh_drawings.instances", "There are no such instances.")


@with_session
def version(session: Session) -> None:
    """Show the version of meshq and of what it runs on."""
    found = {"meshq": _version("meshq"), "python": platform.python_version()}
    found |= {name: _version(name) for name in ("grpcio", "protobuf")}
    if session.json:
        session.output.write_json(found)
    else:
        session.output.write("\n".join(f"{name} {text}" for name, text in found.items()))


def _version(distribution: str) -> str | None:
    import importlib.metadata  # noqa: PLC0415  (slow)

    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
