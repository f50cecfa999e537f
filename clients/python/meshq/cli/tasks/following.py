"""`meshq task watch` and `wait`, and the wait for the end of a task that is created."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from meshq.cli import inputs, shapes
from meshq.cli.declaring import option
from meshq.cli.errors import Trouble, doing
from meshq.cli.exits import ExitCode
from meshq.cli.listing import draw
from meshq.cli.options import Session, with_session
from meshq.cli.task_options import FilterOptions

if TYPE_CHECKING:  # imports grpc
    from meshq.client import SyncClient
    from meshq.client.models import Awaited, Task, TaskChange, TaskEvent

Event = TypeVar("Event")

PATIENCE = 60.0
"""Seconds of silence after which a broken watch is given up; above what lies between two signs of life."""


@with_session
def watch(
    session: Session,
    task_id: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="The id of a task; or else a filter.", show_default=False),
    ] = None,
    *,
    chosen: FilterOptions,
    all_tasks: Annotated[bool, typer.Option("--all", help="Follow the tasks of all queues.")] = False,
    resume: Annotated[
        str,
        option(
            "--resume", metavar="TOKEN", help="With a filter: go on after the change with this resume_token."
        ),
    ] = "",
) -> None:
    """Follow a task to its end, or every change of the tasks that a filter selects.

    One task: states, progress and output, as they happen. On a terminal this is a live view; elsewhere one
    line for each event. The exit code is 0 when the task succeeds, 1 when it fails, is cancelled or
    expires. Many tasks: one line for each change of state, until Ctrl-C or --timeout.
    """
    if sum([task_id is not None, chosen.given, all_tasks]) != 1:
        raise typer.BadParameter("give the id of a task, or else a filter such as --queue, or --all")
    if task_id is None:
        _watch_many(session, chosen, resume)
        return
    with session.client() as client, doing(f"watch task {task_id}"):
        task = _follow(session, _events(session, client, task_id))
    if task is None or session.json:
        raise typer.Exit(_code(task))
    tell_end(session, task)


@with_session
def wait(
    session: Session,
    task_ids: Annotated[
        list[str], typer.Argument(metavar="ID...", help="The ids of the tasks.", show_default=False)
    ],
    *,
    any_: Annotated[bool, typer.Option("--any", help="Wait for one of them, instead of all.")] = False,
) -> None:
    """Wait for the end of several tasks, and show how they stand.

    The exit code is 0 when all of those that have ended succeeded, and 1 otherwise. --timeout limits the
    wait; the tasks themselves go on.
    """
    with (
        session.client() as client,
        _waiting(session, f"{len(task_ids)} tasks"),
        doing("wait for the tasks"),
    ):
        found = client.wait(task_ids, mode="any" if any_ else "all", timeout=session.timeout)
    if session.json:
        for task in found.tasks:
            session.output.write_json(shapes.task(task, full=False))
    elif found.tasks:
        draw(session, found.tasks, "task_drawings.tasks", fits=True)
    _check_awaited(found, session.timeout)


def _check_awaited(found: Awaited, timeout: float | None) -> None:
    if found.missing:
        raise Trouble(f"These tasks are not known: {', '.join(found.missing)}", ExitCode.NOT_FOUND)
    if not found.satisfied:
        still_open = sum(not task.done for task in found.tasks)
        raise Trouble(
            f"{still_open} of {len(found.tasks)} tasks have not ended after {timeout or 0:g} s",
            ExitCode.UNAVAILABLE,
            "they go on; try again, or wait longer with --timeout",
            {"code": "DEADLINE_EXCEEDED"},
        )
    if not all(task.succeeded for task in found.tasks if task.done):
        raise typer.Exit(ExitCode.TASK_NOT_SUCCEEDED)


def finish(session: Session, client: SyncClient, task_id: str, type_: str) -> None:
    """Wait for a task's end, and print its result or what went wrong."""
    hint = f"the task goes on; `meshq task watch {task_id}` follows it"
    shown = f"{type_} {task_id}" if type_ else task_id
    with _waiting(session, shown), doing(f"wait for task {task_id}", {"DEADLINE_EXCEEDED": hint}):
        task = client.run(task_id=task_id, timeout=session.timeout)
    if session.json:
        session.output.write_json(shapes.task(task, full=True))
        raise typer.Exit(_code(task))
    tell_end(session, task)


def tell_end(session: Session, task: Task) -> None:
    """The result on stdout; or why there is none, as an error."""
    from meshq.cli import task_drawings  # noqa: PLC0415  (rich)

    if task.succeeded:
        if task.result_data is not None:
            session.output.write_bytes(task.result_data)
        else:
            session.output.write(task_drawings.value_text(task.result))
        return
    why = task_drawings.failure(task.error) or task.cancel_reason
    made = task_drawings.attempts_made(task)
    ended = f"Task {task.task_id} ({task.type}) {task.state} at attempt {made}"
    hint = f"`meshq task get {task.task_id}` shows it all"
    raise Trouble(f"{ended}: {why}" if why else ended, ExitCode.TASK_NOT_SUCCEEDED, hint)


def _waiting(session: Session, shown: str) -> AbstractContextManager[object]:
    """Something that moves while a person waits, and shows the id in case they stop waiting."""
    if session.json or not sys.stderr.isatty():
        return contextlib.nullcontext()
    return session.output.words.status(f"waiting for {shown}")


def _events(session: Session, client: SyncClient, task_id: str) -> Iterator[TaskEvent]:
    """The events of a task, for as long as --timeout allows."""
    from meshq.contract.errors import DeadlineExceeded  # noqa: PLC0415

    def too_late() -> None:
        raise DeadlineExceeded(f"it has not ended after {session.timeout:g} s")

    return limited(session, client, client.watch(task_id, timeout=PATIENCE), too_late)


def limited(
    session: Session, client: SyncClient, events: Iterator[Event], over: Callable[[], None]
) -> Iterator[Event]:
    """Events for as long as --timeout allows; `over` is called when the time is."""
    from meshq.contract.errors import CallCancelled  # noqa: PLC0415

    if session.timeout is None:
        yield from events
        return
    timer = threading.Timer(session.timeout, client.close)
    timer.daemon = True
    timer.start()
    try:
        yield from events
    except CallCancelled:
        over()
    finally:
        timer.cancel()


def _follow(session: Session, events: Iterator[TaskEvent]) -> Task | None:
    from meshq.cli import watch as views  # noqa: PLC0415

    output = session.output
    if session.json:
        return _follow_as_json(session, events)
    if output.console.is_terminal:
        return views.live(events, output.console)
    return views.plain(events, output.write)


def _follow_as_json(session: Session, events: Iterator[TaskEvent]) -> Task | None:
    from meshq.client.models import Task  # noqa: PLC0415

    last: Task | None = None
    for event in events:
        if isinstance(event, Task):
            full = last is None or event.done
            last = event
            session.output.write_json(shapes.event(event, full=full))
        else:
            session.output.write_json(shapes.event(event))
    return last


def _watch_many(session: Session, chosen: FilterOptions, resume: str) -> None:
    wanted = chosen.wanted()
    token = inputs.bytes_of_base64(resume)
    with session.client() as client, doing("watch the tasks"):
        changes = client.watch_tasks(resume_token=token, timeout=PATIENCE, **wanted)
        for change in limited(session, client, changes, lambda: None):
            _tell_change(session, change)


def _tell_change(session: Session, change: TaskChange) -> None:
    if session.json:
        shape = shapes.event(change.task)
        session.output.write_json(shape | {"resume_token": shapes.base64_text(change.resume_token)})
        return
    from meshq.cli import task_drawings  # noqa: PLC0415  (rich)

    session.output.write(task_drawings.change(change.task))


def _code(task: Task | None) -> ExitCode:
    return ExitCode.OK if task is not None and task.succeeded else ExitCode.TASK_NOT_SUCCEEDED
