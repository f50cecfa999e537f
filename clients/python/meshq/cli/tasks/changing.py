"""`meshq task update`, `cancel`, `redrive` and `delete`."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meshq.cli import inputs, shapes
from meshq.cli.declaring import duration, option, pairs
from meshq.cli.errors import Trouble, doing
from meshq.cli.exits import ExitCode
from meshq.cli.options import Session, with_session
from meshq.cli.questions import confirm
from meshq.cli.task_options import AtOption, FilterOptions, InputOptions
from meshq.cli.tasks.arguments import IdArgument, IdsArgument, PayloadArgument, YesOption

if TYPE_CHECKING:  # imports grpc
    from meshq.client import SyncClient
    from meshq.client.models import TaskFilter

# A running handler has some seconds to stop.
_FORCE_TIMEOUT = 60.0
_OPEN = ("WAITING", "SCHEDULED", "PENDING", "RUNNING", "RETRYING", "CANCELLING")
_ENDED = ("SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED")
_FAILED = ("FAILED",)


@with_session
def update(
    session: Session,
    task_id: IdArgument,
    payload: PayloadArgument = None,
    *,
    source: InputOptions,
    priority: Annotated[
        int | None,
        option("--priority", "-p", metavar="N", help="The new priority, 0 to 9."),
    ] = None,
    at: AtOption = None,
    delay: Annotated[
        dt.timedelta | None,
        duration("--in", help="Do not start before so long from now; 0 for at once."),
    ] = None,
    label: Annotated[
        list[str] | None,
        pairs("--label", "-l", help="A label; repeatable. All labels that the task had are gone."),
    ] = None,
    no_labels: Annotated[bool, typer.Option("--no-labels", help="Take all labels off.")] = False,
) -> None:
    """Change a task that does not run yet: priority, start, input or labels."""
    if label and no_labels:
        raise typer.BadParameter("give one of --label and --no-labels")
    labels = inputs.parse_pairs(label or (), what="a label") if label or no_labels else None
    changes = {"priority": priority, "start_time": at, "start_delay": delay, "labels": labels}
    given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    given |= source.taken(payload)
    if not given:
        raise typer.BadParameter("say what is to change: --priority, --at, --in, --label or an input")
    with session.client() as client, doing(f"update task {task_id}"):
        task = client.update(task_id, **given)
    session.output.tell(shapes.task(task, full=True), f"Task {task_id} is changed; it is {task.state}.")


@with_session
def cancel(
    session: Session,
    task_ids: IdsArgument = None,
    *,
    chosen: FilterOptions,
    reason: Annotated[str, option("--reason", metavar="TEXT", help="Why, for people.")] = "",
    yes: YesOption = False,
) -> None:
    """Ask for tasks to end, by ids or by a filter, and return at once; `meshq task watch` shows them end."""
    ids = _ids_or_filter(task_ids, chosen)
    with session.client() as client:
        if len(ids) == 1:
            with doing(f"cancel task {ids[0]}"):
                task = client.cancel(ids[0], reason)
            session.output.tell(shapes.task(task, full=True), f"Task {ids[0]} is {task.state}.")
            return
        wanted = _confirmed(session, client, "Cancel", chosen, _OPEN, yes=yes)
        with doing("cancel the tasks"):
            done = client.cancel_many(ids or None, reason=reason, **wanted)
    shape = {"cancelled_count": done.count, "missing_task_ids": list(done.missing)}
    session.output.tell(shape, f"{_tasks(done.count)} cancelled or being cancelled.")
    _check_missing(done.missing)


@with_session
def redrive(
    session: Session,
    task_ids: IdsArgument = None,
    *,
    chosen: FilterOptions,
    rate: Annotated[
        float | None,
        option(
            "--rate",
            metavar="N",
            help="With a filter: new tasks that start per second; all at once by default.",
        ),
    ] = None,
    most: Annotated[
        int | None,
        typer.Option(
            "--max", min=1, metavar="N", help="With a filter: tasks at most; default all.", show_default=False
        ),
    ] = None,
    yes: YesOption = False,
) -> None:
    """Make new tasks of some that FAILED, EXPIRED or were CANCELLED, by ids or by a filter.

    By ids the new ids are printed. A filter selects FAILED tasks unless --state says otherwise, and only
    those that were not redriven yet.
    """
    ids = _ids_or_filter(task_ids, chosen)
    if ids and (rate is not None or most is not None):
        raise typer.BadParameter("--rate and --max go with a filter")
    with session.client() as client:
        for task_id in ids:
            with doing(f"redrive task {task_id}"):
                task = client.redrive(task_id)
            session.output.tell(shapes.task(task, full=True), task.task_id)
        if ids:
            return
        wanted = _confirmed(session, client, "Redrive", chosen, _FAILED, yes=yes)
        with doing("redrive the tasks"):
            count = client.redrive_many(rate=rate, max_tasks=most, **wanted)
    session.output.tell({"redriven_count": count}, f"{_tasks(count)} redriven.")


@with_session
def delete(
    session: Session,
    task_ids: IdsArgument = None,
    *,
    chosen: FilterOptions,
    force: Annotated[
        bool, typer.Option("--force", help="Cancel a task first if it has not ended, and wait for that.")
    ] = False,
    yes: YesOption = False,
) -> None:
    """Delete tasks that have ended, with their results, by ids or by a filter."""
    ids = _ids_or_filter(task_ids, chosen)
    if force and not ids:
        raise typer.BadParameter("--force goes with ids; cancel the tasks first")
    with session.client() as client:
        for task_id in ids:
            with doing(f"delete task {task_id}"):
                patience = session.timeout or (_FORCE_TIMEOUT if force else None)
                task = client.delete(task_id, force=force, timeout=patience)
            session.output.tell(shapes.task(task, full=True), f"Task {task_id} is deleted.")
        if ids:
            return
        wanted = _confirmed(session, client, "Delete", chosen, _ENDED, yes=yes)
        with doing("delete the tasks"):
            count = client.delete_many(**wanted)
    session.output.tell({"deleted_count": count}, f"{_tasks(count)} deleted.")


def _ids_or_filter(task_ids: list[str] | None, chosen: FilterOptions) -> list[str]:
    if bool(task_ids) == chosen.given:
        raise typer.BadParameter("give ids of tasks, or else a filter such as --queue or --label")
    return task_ids or []


def _confirmed(
    session: Session,
    client: SyncClient,
    verb: str,
    chosen: FilterOptions,
    states: tuple[str, ...],
    *,
    yes: bool,
) -> TaskFilter:
    """The filter, once a person has agreed to how many tasks it selects; without one none is needed."""
    wanted = chosen.wanted()
    if chosen.given and not yes:
        confirm(session, f"{verb} {_number(client, wanted, states)} tasks?")
    return wanted


def _number(client: SyncClient, wanted: TaskFilter, states: tuple[str, ...]) -> str:
    """How many tasks a filter selects of those that a command concerns."""
    from meshq.client.models import TaskState  # noqa: PLC0415  (grpc)
    from meshq.contract.errors import DeadlineExceeded  # noqa: PLC0415

    concerned = {TaskState(name) for name in states}
    named = wanted.get("states")
    if named and states is not _FAILED:
        concerned &= set(named)
    elif named:
        concerned = set(named)
    if not concerned:
        return "0"
    try:
        with doing("count the tasks"):
            narrowed: TaskFilter = {**wanted, "states": sorted(concerned)}
            found = client.count(**narrowed)
    except Trouble as trouble:
        if isinstance(trouble.__cause__, DeadlineExceeded):
            return "very many"
        raise
    return f"more than {found.count:,}" if found.truncated else f"{found.count:,}"


def _tasks(count: int) -> str:
    return "1 task is" if count == 1 else f"{count:,} tasks are"


def _check_missing(missing: tuple[str, ...]) -> None:
    if missing:
        raise Trouble(
            f"{'This task is' if len(missing) == 1 else 'These tasks are'} not known: {', '.join(missing)}",
            ExitCode.NOT_FOUND,
            "the others were taken care of",
        )
