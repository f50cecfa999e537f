"""`meshq task`: create, read, watch and end tasks."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meshq.cli import inputs, shapes
from meshq.cli.errors import Trouble, doing
from meshq.cli.exits import ExitCode
from meshq.cli.options import Session, with_session

if TYPE_CHECKING:  # imports grpc
    from meshq.client import SyncClient
    from meshq.client.models import Task, TaskEvent

# A running handler has some seconds to stop.
_FORCE_TIMEOUT = 60.0

app = typer.Typer(help="Create, read, watch and end tasks.")

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The id of the task.", show_default=False)]
TypeArgument = Annotated[
    str,
    typer.Argument(
        metavar="TYPE", help="The task type, which selects the handler at a worker.", show_default=False
    ),
]
PayloadArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="PAYLOAD",
        help="The input: JSON if it parses as JSON, else a string; - reads it from standard input.",
        show_default=False,
    ),
]
FileOption = Annotated[
    str | None,
    typer.Option("--file", "-f", metavar="FILE", help="Read the payload from this file.", show_default=False),
]
StringOption = Annotated[
    bool, typer.Option("--string", help="Take the payload as a string, also when it is JSON.")
]
DataFileOption = Annotated[
    str | None,
    typer.Option(
        "--data-file",
        metavar="FILE",
        help="Send the bytes of this file as the input, instead of a payload; - is standard input.",
        show_default=False,
    ),
]
ContentTypeOption = Annotated[
    str,
    typer.Option("--content-type", metavar="TYPE", help="The media type of --data-file.", show_default=False),
]
QueueOption = Annotated[
    str | None,
    typer.Option(
        "--queue", "-q", metavar="NAME", help="The queue; by default `default`.", show_default=False
    ),
]
AttemptsOption = Annotated[
    int | None,
    typer.Option(
        "--max-attempts", metavar="N", help="Attempts in all, 1 to 100; default 3.", show_default=False
    ),
]
HeaderOption = Annotated[
    list[str] | None,
    typer.Option(
        "--header",
        "-H",
        metavar="KEY=VALUE",
        help="Metadata for the handler; repeatable.",
        show_default=False,
    ),
]
RequestIdOption = Annotated[
    str | None,
    typer.Option(
        "--request-id",
        metavar="ID",
        help="Makes the command repeatable: the same id gives the same task.",
        show_default=False,
    ),
]


@app.command("create")
@with_session
def create(
    session: Session,
    type: TypeArgument,  # noqa: A002 - the field's name
    payload: PayloadArgument = None,
    *,
    file: FileOption = None,
    string: StringOption = False,
    data_file: DataFileOption = None,
    content_type: ContentTypeOption = "",
    queue: QueueOption = None,
    max_attempts: AttemptsOption = None,
    header: HeaderOption = None,
    request_id: RequestIdOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end and print the result.")] = False,
) -> None:
    """Create a task and print its id.

    With --wait it goes on as `meshq task run ID`, and the exit code is 1 unless the task succeeds.
    """
    taken = _taken(payload, file, string, data_file, content_type)
    taken |= _options(queue, max_attempts, header, request_id)
    with session.client() as client:
        task = _create(client, type, taken)
        if wait:
            _finish(session, client, task.task_id, task.type)
        elif session.json:
            session.output.write_json(shapes.task(task, full=True))
        else:
            session.output.write(task.task_id)


@app.command("run")
@with_session
def run(
    session: Session,
    type_or_id: Annotated[
        str,
        typer.Argument(
            metavar="TYPE|ID",
            help="The type of a new task, or the id of an existing one.",
            show_default=False,
        ),
    ],
    payload: PayloadArgument = None,
    *,
    file: FileOption = None,
    string: StringOption = False,
    data_file: DataFileOption = None,
    content_type: ContentTypeOption = "",
    queue: QueueOption = None,
    max_attempts: AttemptsOption = None,
    header: HeaderOption = None,
    request_id: RequestIdOption = None,
) -> None:
    """Create a task, or take an existing one, wait for its end and print its result.

    The exit code is 0 when the task succeeds, 1 when it fails, is cancelled or expires. --timeout limits
    the wait; the task itself goes on.
    """
    taken = _taken(payload, file, string, data_file, content_type)
    taken |= _options(queue, max_attempts, header, request_id)
    existing = inputs.is_task_id(type_or_id)
    if existing and taken:
        raise typer.BadParameter(f"{type_or_id} is the id of a task; input and options are for new tasks")
    with session.client() as client:
        task_id = type_or_id if existing else _create(client, type_or_id, taken).task_id
        _finish(session, client, task_id, "" if existing else type_or_id)


@app.command("get")
@with_session
def get(session: Session, task_id: IdArgument) -> None:
    """Show everything about a task, its input and result included."""
    with session.client() as client, doing(f"get task {task_id}"):
        task = client.get(task_id)
    _show(session, task)


@app.command("list")
@with_session
def list_(
    session: Session,
    *,
    state: Annotated[
        list[str] | None,
        typer.Option(
            "--state", "-s", metavar="STATE", help="Only this state; repeatable.", show_default=False
        ),
    ] = None,
    type: Annotated[  # noqa: A002 - the field's name
        str | None, typer.Option("--type", "-t", metavar="TYPE", help="Only this type.", show_default=False)
    ] = None,
    queue: Annotated[
        str | None, typer.Option("--queue", "-q", metavar="NAME", help="Only this queue.", show_default=False)
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="TIME",
            help="Only tasks created then or later: 10m for ten minutes ago (s, m, h, d), or ISO 8601.",
            show_default=False,
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="TIME", help="Only tasks created before.", show_default=False),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, metavar="N", help="Show at most so many.")
    ] = 50,
    all_pages: Annotated[bool, typer.Option("--all", help="Show all, page by page.")] = False,
) -> None:
    """List tasks, the newest first."""
    now = dt.datetime.now(dt.UTC)
    wanted: dict[str, Any] = {
        "states": inputs.parse_states(state or ()),
        "type": type,
        "queue": queue,
        "min_create_time": inputs.parse_time(since, now),
        "max_create_time": inputs.parse_time(until, now),
        "page_size": 1_000 if all_pages else min(limit + 1, 1_000),
    }
    wanted = {name: value for name, value in wanted.items() if value}
    with session.client() as client, doing("list tasks"):
        found = client.list(**wanted)
        if not all_pages:
            found = _cut(session, found, limit)
        _show_many(session, found)


@app.command("watch")
@with_session
def watch(session: Session, task_id: IdArgument) -> None:
    """Follow a task to its end: states, progress and output, as they happen.

    On a terminal this is a live view; elsewhere one line for each event. The exit code is 0 when the task
    succeeds, 1 when it fails, is cancelled or expires.
    """
    with session.client() as client, doing(f"watch task {task_id}"):
        task = _follow(session, _events(session, client, task_id))
    if task is None or session.json:
        raise typer.Exit(_code(task))
    _tell_end(session, task)


@app.command("cancel")
@with_session
def cancel(
    session: Session,
    task_id: IdArgument,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why, for people.", show_default=False)
    ] = "",
) -> None:
    """Ask for a task to end, and return at once; `meshq task watch` shows it end."""
    with session.client() as client, doing(f"cancel task {task_id}"):
        task = client.cancel(task_id, reason)
    _tell(session, task, f"Task {task_id} is {task.state}.")


@app.command("delete")
@with_session
def delete(
    session: Session,
    task_id: IdArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Cancel the task first if it has not ended, and wait for that.")
    ] = False,
) -> None:
    """Delete a task that has ended, with its result."""
    with session.client() as client, doing(f"delete task {task_id}"):
        patience = session.timeout or (_FORCE_TIMEOUT if force else None)
        task = client.delete(task_id, force=force, timeout=patience)
    _tell(session, task, f"Task {task_id} is deleted.")


def _taken(
    payload: str | None, file: str | None, string: bool, data_file: str | None, content_type: str
) -> dict[str, Any]:
    """The input of a task, from whichever of the options was given."""
    if sum(source is not None for source in (payload, file, data_file)) > 1:
        raise typer.BadParameter("give one of PAYLOAD, --file and --data-file")
    if data_file is not None:
        return {"data": inputs.read_bytes(data_file), "content_type": content_type}
    if content_type:
        raise typer.BadParameter("--content-type goes with --data-file")
    if file is not None or payload == inputs.STDIN:
        return {"payload": inputs.parse_payload(inputs.read_text(file or inputs.STDIN), as_string=string)}
    return {} if payload is None else {"payload": inputs.parse_payload(payload, as_string=string)}


def _options(
    queue: str | None, max_attempts: int | None, header: list[str] | None, request_id: str | None
) -> dict[str, Any]:
    given = {
        "queue": queue,
        "max_attempts": max_attempts,
        "headers": inputs.parse_headers(header or ()) or None,
        "request_id": request_id,
    }
    return {name: value for name, value in given.items() if value is not None}


def _create(client: SyncClient, type_: str, taken: dict[str, Any]) -> Task:
    with doing(f"create a task of type {type_!r}"):
        return client.create(type_, **taken)


def _finish(session: Session, client: SyncClient, task_id: str, type_: str) -> None:
    """Wait for a task's end, and print its result or what went wrong."""
    hint = f"the task goes on; `meshq task watch {task_id}` follows it"
    shown = f"{type_} {task_id}" if type_ else task_id
    with _waiting(session, shown), doing(f"wait for task {task_id}", {"DEADLINE_EXCEEDED": hint}):
        task = client.run(task_id=task_id, timeout=session.timeout)
    if session.json:
        session.output.write_json(shapes.task(task, full=True))
        raise typer.Exit(_code(task))
    _tell_end(session, task)


def _waiting(session: Session, shown: str) -> AbstractContextManager[object]:
    """Something that moves while a person waits, and shows the id in case they stop waiting."""
    if session.json or not sys.stderr.isatty():
        return contextlib.nullcontext()
    return session.output.words.status(f"waiting for {shown}")


def _events(session: Session, client: SyncClient, task_id: str) -> Iterator[TaskEvent]:
    """The events of a task, for as long as --timeout allows."""
    from meshq.contract.errors import CallCancelled, DeadlineExceeded  # noqa: PLC0415

    if session.timeout is None:
        yield from client.watch(task_id)
        return
    timer = threading.Timer(session.timeout, client.close)
    timer.daemon = True
    timer.start()
    try:
        yield from client.watch(task_id)
    except CallCancelled as error:
        raise DeadlineExceeded(f"it has not ended after {session.timeout:g} s") from error
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


def _code(task: Task | None) -> ExitCode:
    return ExitCode.OK if task is not None and task.succeeded else ExitCode.TASK_NOT_SUCCEEDED


def _tell_end(session: Session, task: Task) -> None:
    """The result on stdout; or why there is none, as an error."""
    from meshq.cli import render  # noqa: PLC0415

    if task.succeeded:
        if task.result_data is not None:
            session.output.write_bytes(task.result_data)
        else:
            session.output.write(render.value_text(task.result))
        return
    why = render.failure(task) or task.cancel_reason
    ended = f"Task {task.task_id} ({task.type}) {task.state} at attempt {task.attempt} of {task.max_attempts}"
    hint = f"`meshq task get {task.task_id}` shows it all"
    raise Trouble(f"{ended}: {why}" if why else ended, ExitCode.TASK_NOT_SUCCEEDED, hint)


def _tell(session: Session, task: Task, sentence: str) -> None:
    if session.json:
        session.output.write_json(shapes.task(task, full=True))
    else:
        session.output.write(sentence)


def _show(session: Session, task: Task) -> None:
    if session.json:
        session.output.write_json(shapes.task(task, full=True))
        return
    from meshq.cli import render  # noqa: PLC0415

    session.output.draw(render.task(task))


def _show_many(session: Session, found: Iterator[Task]) -> None:
    if session.json:
        for task in found:
            session.output.write_json(shapes.task(task, full=False))
        return
    from meshq.cli import render  # noqa: PLC0415

    first = next(found, None)
    if first is None:
        session.output.say("There are no such tasks.")
    else:
        wide = session.output.console.width >= render.WIDE
        session.output.draw(render.tasks(itertools.chain([first], found), wide=wide))


def _cut(session: Session, found: Iterator[Task], limit: int) -> Iterator[Task]:
    """The first tasks; a person is told when there are more."""
    yield from itertools.islice(found, limit)
    if next(found, None) is not None and not session.json:
        session.output.say(f"There are more than {limit}; --all shows all, --limit more.")
