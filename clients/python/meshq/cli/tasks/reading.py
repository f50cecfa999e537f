"""`meshq task get`, `list`, `count` and `attempts`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from meshq.cli import shapes
from meshq.cli.errors import doing
from meshq.cli.listing import draw, show_many
from meshq.cli.options import Session, with_session
from meshq.cli.task_options import FilterOptions
from meshq.cli.tasks.arguments import IdArgument

if TYPE_CHECKING:  # imports grpc
    from meshq.client import SyncClient
    from meshq.client.models import Attempt, Task

_MOST_IN_PAGE = 1_000


@with_session
def get(session: Session, task_id: IdArgument) -> None:
    """Show everything about a task: what it waits for, its attempts, its input and its result."""
    with session.client() as client:
        with doing(f"get task {task_id}"):
            task = client.get(task_id)
        tried = _attempts(client, task)
    if session.json:
        told = None if tried is None else [shapes.record(item) for item in tried]
        session.output.write_json(shapes.task(task, full=True) | {"attempts": told})
        return
    from meshq.cli import task_drawings  # noqa: PLC0415  (rich)

    session.output.draw(task_drawings.task(task, tried))


def _attempts(client: SyncClient, task: Task) -> tuple[Attempt, ...] | None:
    """The attempts; None when nobody can say, which keeps no one from reading the rest."""
    from meshq.contract.errors import MeshqError  # noqa: PLC0415  (grpc)

    try:
        return client.attempts(task.task_id)
    except MeshqError:
        return None


@with_session
def list_(
    session: Session,
    *,
    chosen: FilterOptions,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, metavar="N", help="Show at most so many.")
    ] = 50,
    all_pages: Annotated[bool, typer.Option("--all", help="Show all, page by page.")] = False,
) -> None:
    """List tasks, the newest first."""
    wanted = chosen.wanted()
    page_size = _MOST_IN_PAGE if all_pages else min(limit + 1, _MOST_IN_PAGE)
    with session.client() as client, doing("list tasks"):
        found = client.list(page_size=page_size, **wanted)
        if not all_pages:
            found = _cut(session, found, limit)
        _show_tasks(session, found)


@with_session
def count(session: Session, *, chosen: FilterOptions) -> None:
    """Count tasks; counting stops at a million."""
    wanted = chosen.wanted()
    with session.client() as client, doing("count tasks"):
        found = client.count(**wanted)
    if session.json:
        session.output.write_json(shapes.record(found))
    else:
        session.output.write(f"more than {found.count}" if found.truncated else str(found.count))


@with_session
def attempts(session: Session, task_id: IdArgument) -> None:
    """Show the attempts of a task that have ended, the oldest first, with their errors and traces."""
    with session.client() as client, doing(f"get the attempts of task {task_id}"):
        found = client.attempts(task_id)
    show_many(session, found, "task_drawings.attempts_whole", "No attempt has ended yet.")


def _show_tasks(session: Session, found: Iterator[Task]) -> None:
    if session.json:
        for task in found:
            session.output.write_json(shapes.task(task, full=False))
        return
    first = next(found, None)
    if first is None:
        session.output.say("There are no such tasks.")
    else:
        draw(session, itertools.chain([first], found), "task_drawings.tasks", fits=True)


def _cut(session: Session, found: Iterator[Task], limit: int) -> Iterator[Task]:
    """The first tasks; a person is told when there are more."""
    yield from itertools.islice(found, limit)
    if next(found, None) is not None and not session.json:
        session.output.say(f"There are more than {limit}; --all shows all, --limit more.")
