"""All commands put together, and those that other parts bring."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import typer

from meshq.cli import bench, exits, mesh, mesh_ring, queues, tasks, workers
from meshq.cli.errors import missing_extra
from meshq.cli.options import remember

GROUP: Final = "meshq.cli"
"""The entry points that bring further commands: functions that take the application."""

COMMANDS_OF_EXTRA: Final = {
    "local": {
        "up": "Start the whole system on this machine.",
        "down": "Stop the system that `up` started.",
        "status": "Show the processes of the system that `up` started.",
        "backup": "Back both databases up into one file, while everything goes on.",
        "restore": "Restore both databases from a backup, while nothing runs.",
    },
}
"""The commands by entry point, so that they are known where their extra is not installed."""

BUILT_IN: Final = {"task", "queue", "worker", "service", "instance", "ring", "shard", "bench", "version"}


def application(words: Sequence[str]) -> typer.Typer:
    """The command line for these arguments.

    Commands of other parts are loaded only when the arguments name no built-in one, because looking for
    them takes a while.
    """
    app = typer.Typer(
        name="meshq",
        help="Talk to meshq, the distributed task queue: create, watch and manage tasks.",
        epilog=exits.help_text(),
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        callback=remember,
    )
    app.add_typer(tasks.app, name="task")
    app.add_typer(queues.app, name="queue")
    app.add_typer(workers.app, name="worker")
    app.add_typer(mesh.services, name="service")
    app.add_typer(mesh.instances, name="instance")
    app.add_typer(mesh_ring.app, name="ring")
    app.add_typer(mesh_ring.shards, name="shard", hidden=True)
    app.command("bench")(bench.bench)
    app.command("version")(mesh.version)
    if not BUILT_IN.intersection(words):
        _add_commands_of_others(app, words)
    return app


def _add_commands_of_others(app: typer.Typer, words: Sequence[str]) -> None:
    import importlib.metadata  # noqa: PLC0415  (slow, and not needed for the commands above)

    for entry in importlib.metadata.entry_points(group=GROUP):
        known = COMMANDS_OF_EXTRA.get(entry.name, {})
        if known and not set(known).intersection(words):
            _add_stand_ins(app, entry.name)  # for the help, which needs only names
            continue
        try:
            register = entry.load()
        except ImportError as error:
            _add_stand_ins(app, entry.name, error)
        else:
            register(app)


def _add_stand_ins(app: typer.Typer, extra: str, error: ImportError | None = None) -> None:
    for name, text in COMMANDS_OF_EXTRA.get(extra, {}).items():
        settings = {"allow_extra_args": True, "ignore_unknown_options": True}
        app.command(name, help=text, context_settings=settings)(_stand_in(name, extra, error))


def _stand_in(name: str, extra: str, error: ImportError | None) -> Callable[[], None]:
    def command() -> None:
        raise missing_extra(f"meshq {name}", extra, error)

    return command
