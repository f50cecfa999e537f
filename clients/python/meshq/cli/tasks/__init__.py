"""`meshq task`: create, find, change, watch and end tasks."""

from __future__ import annotations

import typer

from meshq.cli.tasks import changing, completing, creating, following, reading

app = typer.Typer(help="Create, find, change, watch and end tasks.")

for _name, _command in {
    "create": creating.create,
    "run": creating.run,
    "bulk": creating.bulk,
    "get": reading.get,
    "list": reading.list_,
    "count": reading.count,
    "attempts": reading.attempts,
    "watch": following.watch,
    "wait": following.wait,
    "update": changing.update,
    "cancel": changing.cancel,
    "redrive": changing.redrive,
    "delete": changing.delete,
    "complete": completing.complete,
}.items():
    app.command(_name)(_command)
