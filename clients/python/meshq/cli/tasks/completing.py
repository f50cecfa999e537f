"""`meshq task complete`, of a task whose handler has left its end to somebody else."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from meshq.cli.declaring import option
from meshq.cli.errors import Trouble, doing
from meshq.cli.exits import ExitCode
from meshq.cli.options import DEFAULT_TIMEOUT, Session, with_session
from meshq.cli.task_options import InputOptions

_NAMES: Final = {
    "lease_token": "TOKEN",
    "results[0].lease_token": "TOKEN",
    "result": "RESULT",
    "results[0].success.result": "RESULT",
    "results[0].success.data": "--data-file",
    "results[0].success.content_type": "--content-type",
    "results[0].failure.error.type": "--error-type",
}


@with_session
def complete(
    session: Session,
    token: Annotated[
        str,
        typer.Argument(metavar="TOKEN", help="The lease token, as the handler gave it.", show_default=False),
    ],
    result: Annotated[
        str | None,
        typer.Argument(
            metavar="RESULT",
            help="The result: JSON if it parses as JSON, else a string; - reads it from standard input.",
            show_default=False,
        ),
    ] = None,
    *,
    source: InputOptions,
    error: Annotated[
        str | None, option("--error", metavar="MESSAGE", help="The attempt has failed, and why.")
    ] = None,
    error_type: Annotated[
        str | None,
        option("--error-type", metavar="TYPE", help="With --error: its type; default Failed."),
    ] = None,
    non_retryable: Annotated[
        bool, typer.Option("--non-retryable", help="With --error: another attempt is useless.")
    ] = False,
) -> None:
    """End a task whose handler has left that to whoever has its lease token, with a result or an error.

    The result is given as the input of a new task is; without one the task succeeds with none. The first
    end counts, and repeating it does no harm.
    """
    given = source.taken(result)
    if error is None and (error_type is not None or non_retryable):
        raise typer.BadParameter("--error-type and --non-retryable go with --error")
    if error is not None and given:
        raise typer.BadParameter("give a result or --error, not both")
    from meshq.client.leases import LeaseLost, SyncLeases  # noqa: PLC0415  (grpc)

    timeout = session.timeout or DEFAULT_TIMEOUT
    with SyncLeases(session.target, timeout=timeout) as leases, doing("complete the task", names=_NAMES):
        try:
            if error is None:
                leases.succeed(token, **given)
            else:
                kind = "Failed" if error_type is None else error_type
                leases.fail(token, error, kind=kind, non_retryable=non_retryable)
        except LeaseLost:
            raise Trouble(
                "Cannot complete the task: its attempt has ended otherwise",
                ExitCode.CONFLICT,
                "nothing was recorded; `meshq task get` shows how it stands",
                {"code": "FAILED_PRECONDITION"},
            ) from None
    session.output.tell({"status": "ACCEPTED"}, "The end of the attempt is recorded.")
