"""`meshq up`, `meshq down` and `meshq status`."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from meshq.local import background, foreground, running
from meshq.local.backup import commands as backup
from meshq.local.board import Board, board_for
from meshq.local.errors import BadSetting, LocalError
from meshq.local.plan import Size
from meshq.local.settings import EDGE_PORT, default_data
from meshq.local.state import SystemState
from meshq.local.system import System

_FAILED = 1

DataOption = Annotated[
    Path | None,
    typer.Option("--data", help="Where data and logs are [default: $MESHQ_DATA or ~/.local/share/meshq]."),
]


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    app.command()(up)
    app.command()(down)
    app.command()(status)
    backup.register(app)


def up(
    data: DataOption = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port of the edge; 0 takes a free one.")
    ] = EDGE_PORT,
    ephemeral: Annotated[
        bool, typer.Option("--ephemeral", help="Keep the data in a temporary folder, removed at the end.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when the system is ready and leave it running.")
    ] = False,
    shards: Annotated[int, typer.Option(min=1, max=16, help="How many shards queue the tasks.")] = 3,
) -> None:
    """Start the whole system on this machine: servers, components, edge and a worker."""
    with _sentences():
        if ephemeral and data is not None:
            raise BadSetting("--ephemeral makes a folder of its own, so --data has no meaning beside it.")
        begin = time.monotonic()
        if detach:
            _up_detached(data, port, ephemeral, shards, begin)
        else:
            raise typer.Exit(_up(data, port, ephemeral, shards, begin))


def _up(data: Path | None, port: int, ephemeral: bool, shards: int, begin: float) -> int:
    board = board_for()
    system = System(data, port=port, ephemeral=ephemeral, size=Size(shards=shards), changed=board.show)
    with ExitStack() as shown:
        shown.enter_context(board)

        def ready() -> None:
            shown.close()
            _say_ready(board, system.edge, str(system.data), begin)
            board.say("Ctrl-C stops it.")

        return foreground.run(system, ready)


def _up_detached(data: Path | None, port: int, ephemeral: bool, shards: int, begin: float) -> None:
    board = board_for()
    with board:
        started = background.start(data, port, ephemeral, shards, board)
    _say_ready(board, started.edge, started.data, begin)
    own = Path(started.data) == default_data().absolute()
    board.say("Stop it with: meshq down" + ("" if own else f" --data {started.data}"))


def _say_ready(board: Board, edge: str, data: str, begin: float) -> None:
    board.say(
        f"meshq is ready on http://{edge} after {time.monotonic() - begin:.1f} s; its data is in {data}."
    )


def down(data: DataOption = None) -> None:
    """Stop the system that runs on the data; returns when no process is left."""
    with _sentences():
        running.stop(_directory(data))
        typer.echo("meshq is stopped.")


def status(
    data: DataOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show which processes run; the exit code is 0 when all are ready."""
    directory = _directory(data)
    with _sentences():
        try:
            state = running.state_of(directory)
        except LocalError:
            if as_json:
                typer.echo(json.dumps({"running": False, "ready": False, "data": str(directory)}))
                raise typer.Exit(_FAILED) from None
            raise
        typer.echo(_as_json(state, directory) if as_json else _as_text(state))
        if not state.ready:
            raise typer.Exit(_FAILED)


def _directory(data: Path | None) -> Path:
    return (data or default_data()).absolute()


def _as_json(state: SystemState, data: Path) -> str:
    return json.dumps({"running": True, "data": str(data), **asdict(state)}, indent=2)


def _as_text(state: SystemState) -> str:
    rows = [("process", "state", "address", "pid", "restarts")]
    rows += [
        (one.name, one.state, one.address, str(one.pid or ""), str(one.restarts)) for one in state.processes
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n".join(
        [*lines, "", f"The edge is http://{state.edge}" + ("." if state.ready else ", not ready.")]
    )


@contextmanager
def _sentences() -> Iterator[None]:
    """What can go wrong ends in one sentence and a code, never in a traceback."""
    try:
        yield
    except LocalError as error:
        typer.echo(f"meshq: {error}", err=True)
        raise typer.Exit(_FAILED) from None
