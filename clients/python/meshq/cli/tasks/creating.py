"""`meshq task create`, `run` and `bulk`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from meshq.cli import inputs, shapes
from meshq.cli.declaring import option
from meshq.cli.errors import Trouble, doing, trouble_of
from meshq.cli.options import Session, with_session
from meshq.cli.task_options import InputOptions, RetryOptions, SpecOptions
from meshq.cli.tasks.arguments import PayloadArgument, RequestIdOption
from meshq.cli.tasks.following import finish
from meshq.cli.tasks.lines import Lines

if TYPE_CHECKING:  # imports grpc
    from meshq.client import SyncClient
    from meshq.client.models import Created, Task

TypeArgument = Annotated[
    str,
    typer.Argument(
        metavar="TYPE", help="The task type, which selects the handler at a worker.", show_default=False
    ),
]


@with_session
def create(
    session: Session,
    type: TypeArgument,  # noqa: A002 - the field's name
    payload: PayloadArgument = None,
    *,
    source: InputOptions,
    spec: SpecOptions,
    retries: RetryOptions,
    request_id: RequestIdOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end and print the result.")] = False,
) -> None:
    """Create a task and print its id.

    With --wait it goes on as `meshq task run ID`, and the exit code is 1 unless the task succeeds.
    """
    taken = source.taken(payload) | spec.taken(retries) | _named(request_id)
    with session.client() as client:
        task = _create(client, type, taken)
        if wait:
            finish(session, client, task.task_id, task.type)
        elif session.json:
            session.output.write_json(shapes.task(task, full=True))
        else:
            session.output.write(task.task_id)


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
    source: InputOptions,
    spec: SpecOptions,
    retries: RetryOptions,
    request_id: RequestIdOption = None,
) -> None:
    """Create a task, or take an existing one, wait for its end and print its result.

    The exit code is 0 when the task succeeds, 1 when it fails, is cancelled or expires. --timeout limits
    the wait; the task itself goes on.
    """
    taken = source.taken(payload) | spec.taken(retries) | _named(request_id)
    existing = inputs.is_task_id(type_or_id)
    if existing and taken:
        raise typer.BadParameter(f"{type_or_id} is the id of a task; input and options are for new tasks")
    with session.client() as client:
        task_id = type_or_id if existing else _create(client, type_or_id, taken).task_id
        finish(session, client, task_id, "" if existing else type_or_id)


@with_session
def bulk(
    session: Session,
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="One task a line; - is standard input.", show_default=False),
    ] = inputs.STDIN,
    *,
    type: Annotated[  # noqa: A002 - the field's name
        str | None,
        option(
            "--type",
            "-t",
            metavar="TYPE",
            help="Each line is the payload of a task of this type, and no object.",
        ),
    ] = None,
    string: Annotated[
        bool, typer.Option("--string", help="With --type: take each line as a string, also when it is JSON.")
    ] = False,
    spec: SpecOptions,
    retries: RetryOptions,
) -> None:
    """Create a task for each line of a file, and print the ids in the order of the lines.

    A line is a JSON object with `type`, `payload` and whatever else is said about the task, under the names
    that --json prints; options count where a line says nothing. A task that is refused is told on stderr
    and does not keep the others out; the exit code is then not 0.
    """
    if string and type is None:
        raise typer.BadParameter("--string goes with --type")
    lines = Lines(file, type, spec.taken(retries), as_string=string)
    refused: list[Trouble] = []
    count = existing = 0
    with session.client() as client, doing("create tasks"):
        for created in client.create_many(lines.specs()):
            count += created.error is None
            existing += created.existing
            _tell_created(session, created, lines.number_of(created.index), refused)
    if not session.json:
        session.output.say(_summary(count - existing, existing, len(refused)))
    if lines.trouble is not None:
        raise lines.trouble
    if refused:
        raise typer.Exit(refused[0].exit_code)


def _tell_created(session: Session, created: Created, number: int, refused: list[Trouble]) -> None:
    trouble = None
    if created.error is not None:
        trouble = trouble_of(created.error, f"create the task of line {number}", {})
        refused.append(trouble)
    if session.json:
        error = trouble.shape()["error"] if trouble else None
        line = {"line": number, "task_id": created.task_id, "existing": created.existing, "error": error}
        session.output.write_json(line)
    elif trouble:
        session.output.say(trouble.sentence())
    else:
        session.output.write(created.task_id or "")


def _summary(count: int, existing: int, refused: int) -> str:
    parts = [f"{count:,} created"]
    parts += [f"{existing:,} existed"] if existing else []
    parts += [f"{refused:,} refused"] if refused else []
    return ", ".join(parts) + "."


def _named(request_id: str | None) -> dict[str, Any]:
    return {} if request_id is None else {"request_id": request_id}


def _create(client: SyncClient, type_: str, taken: dict[str, Any]) -> Task:
    with doing(f"create a task of type {type_!r}"):
        return client.create(type_, **taken)
