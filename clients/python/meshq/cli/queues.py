"""`meshq queue`: the queues, their figures and settings; stopping and clearing them."""

from __future__ import annotations

import datetime as dt
import getpass
import socket
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from meshq.cli import shapes
from meshq.cli.declaring import duration, option
from meshq.cli.errors import doing
from meshq.cli.listing import show, show_many
from meshq.cli.options import Session, with_session
from meshq.cli.questions import confirm
from meshq.cli.queue_options import DefaultOptions, LimitOptions, settings
from meshq.cli.task_options import RetryOptions
from meshq.cli.tasks.arguments import YesOption
from meshq.cli.tasks.following import PATIENCE, limited

if TYPE_CHECKING:  # imports grpc
    from meshq.client import SyncClient
    from meshq.client.models import QueueNews, TaskDefaults

app = typer.Typer(help="Show, set, stop and clear the queues.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The queue's name.", show_default=False)]
ReasonOption = Annotated[str, option("--reason", metavar="TEXT", help="Why, for people.")]
ActorOption = Annotated[
    str | None,
    option("--actor", metavar="WHO", help="Who asks; by default you@this-machine."),
]

_NAMES = {"queue": "NAME"}


@app.command("list")
@with_session
def list_(session: Session) -> None:
    """List the queues with their figures."""
    with session.client() as client, doing("list the queues"):
        found = tuple(client.queues())
    none = "There are no queues; the first task of a queue creates it."
    show_many(session, found, "queue_drawings.queues", none)


@app.command("get")
@with_session
def get(session: Session, name: NameArgument) -> None:
    """Show everything about a queue: figures, settings, and who stopped it."""
    with session.client() as client, doing(f"get queue {name}", names=_NAMES):
        found = client.queue(name)
    show(session, found, "queue_drawings.queue")


@app.command("create")
@with_session
def create(
    session: Session,
    name: NameArgument,
    *,
    limits: LimitOptions,
    defaults: DefaultOptions,
    retries: RetryOptions,
) -> None:
    """Declare a queue with its settings. Without this, the first task of a queue creates it."""
    given = settings(limits, defaults, retries, {})
    with session.client() as client, doing(f"create queue {name}", names=_NAMES):
        found = client.create_queue(name, **given)
    session.output.tell(shapes.record(found), f"Queue {name} is created.")


@app.command("set")
@with_session
def set_(
    session: Session,
    name: NameArgument,
    *,
    limits: LimitOptions,
    defaults: DefaultOptions,
    retries: RetryOptions,
    declare: Annotated[bool, typer.Option("--create", help="Declare the queue if there is none.")] = False,
) -> None:
    """Change settings of a queue; what is not named stays, and `none` takes a setting back.

    Limits concern everything at once, defaults and retention the tasks that are created from then on.
    """
    if not (limits.taken() or defaults.taken(retries)):
        raise typer.BadParameter("say what to set, such as --max-running 10")
    with session.client() as client, doing(f"set queue {name}", names=_NAMES):
        before = _type_defaults(client, name, missing_ok=declare) if defaults.type else {}
        given = settings(limits, defaults, retries, before)
        found = client.update_queue(name, allow_missing=declare, **given)
    session.output.tell(shapes.record(found), f"Queue {name} is set.")


def _type_defaults(client: SyncClient, name: str, *, missing_ok: bool) -> Mapping[str, TaskDefaults]:
    """What is set by type, which is changed as a whole."""
    from meshq.contract.errors import NotFound  # noqa: PLC0415  (grpc)

    try:
        return client.queue(name).type_defaults
    except NotFound:
        if missing_ok:
            return {}
        raise


@app.command("pause")
@with_session
def pause(
    session: Session, name: NameArgument, *, reason: ReasonOption = "", actor: ActorOption = None
) -> None:
    """Keep the tasks of a queue from workers until it is resumed; running ones go on, new ones are taken."""
    with session.client() as client, doing(f"pause queue {name}", names=_NAMES):
        found = client.pause_queue(name, reason, actor=_actor(actor))
    session.output.tell(shapes.record(found), f"Queue {name} is paused.")


@app.command("drain")
@with_session
def drain(
    session: Session, name: NameArgument, *, reason: ReasonOption = "", actor: ActorOption = None
) -> None:
    """Refuse new tasks for a queue until it is resumed; those it has are worked off."""
    with session.client() as client, doing(f"drain queue {name}", names=_NAMES):
        found = client.drain_queue(name, reason, actor=_actor(actor))
    session.output.tell(shapes.record(found), f"Queue {name} takes no new tasks.")


@app.command("resume")
@with_session
def resume(
    session: Session, name: NameArgument, *, reason: ReasonOption = "", actor: ActorOption = None
) -> None:
    """End what `pause` and `drain` began."""
    with session.client() as client, doing(f"resume queue {name}", names=_NAMES):
        found = client.resume_queue(name, reason, actor=_actor(actor))
    session.output.tell(shapes.record(found), f"Queue {name} goes on.")


@app.command("purge")
@with_session
def purge(session: Session, name: NameArgument, *, reason: ReasonOption = "", yes: YesOption = False) -> None:
    """Cancel all tasks of a queue that no worker has."""
    with session.client() as client:
        if not yes:
            with doing(f"purge queue {name}", names=_NAMES):
                counts = client.queue(name).counts
            waiting = counts.waiting + counts.scheduled + counts.pending
            confirm(session, f"Cancel about {waiting:,} tasks that wait in queue {name}?")
        with doing(f"purge queue {name}", names=_NAMES):
            count = client.purge_queue(name, reason)
    session.output.tell(
        {"queue": name, "cancelled_count": count},
        f"{count:,} tasks of queue {name} are cancelled or being cancelled.",
    )


@app.command("delete")
@with_session
def delete(session: Session, name: NameArgument) -> None:
    """Forget a queue without open tasks, with its settings and figures."""
    with session.client() as client, doing(f"delete queue {name}", names=_NAMES):
        found = client.delete_queue(name)
    session.output.tell(shapes.record(found), f"Queue {name} is deleted.")


@app.command("watch")
@with_session
def watch(
    session: Session,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME...", help="The queues; all by default.")
    ] = None,
    *,
    interval: Annotated[
        dt.timedelta | None,
        duration("--interval", help="Time between two looks, 500ms to 60s; default 2s."),
    ] = None,
) -> None:
    """Show the queues and their figures as they change, until Ctrl-C or --timeout."""
    with session.client() as client, doing("watch the queues"):
        stream = client.watch_queues(names or (), interval=interval, timeout=PATIENCE)
        _follow(session, limited(session, client, stream, lambda: None))


def _follow(session: Session, stream: Iterator[QueueNews]) -> None:
    if session.json:
        for news in stream:
            for item in news.queues:
                session.output.write_json({"event": "queue", "queue": shapes.record(item)})
            for name in news.deleted:
                session.output.write_json({"event": "deleted", "queue": name})
        return
    from meshq.cli import queue_drawings  # noqa: PLC0415  (rich)

    if session.output.console.is_terminal:
        queue_drawings.live(stream, session.output.console)
        return
    for news in stream:
        for line in queue_drawings.lines(news):
            session.output.write(line)


def _actor(given: str | None) -> str:
    """Who stops a queue or lets it go on, for those who wonder later."""
    if given is not None:
        return given
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"[:128]
    except (OSError, KeyError):  # an account without a name
        return socket.gethostname()[:128]
