"""The options that every command takes, before or after its name, and the session made from them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import itertools
import math
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, Final, ParamSpec

import typer

from meshq.cli.output import Output

if TYPE_CHECKING:  # imports grpc
    from meshq.client import SyncClient

DEFAULT_TIMEOUT: Final = 10.0
"""Seconds for a call. Shorter than a program would have it: a person waits."""

TargetOption = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="HOST:PORT",
        help="Where meshq answers; by default MESHQ_TARGET from the environment, or localhost:8080.",
        show_default=False,
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print JSON: one object, or one object a line for lists and streams."),
]
TimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        help="How long to wait: for an answer (default 10), or for the end of a task (default: as long as it"
        " takes).",
        show_default=False,
    ),
]
NoColorOption = Annotated[
    bool, typer.Option("--no-color", help="Print without colours; NO_COLOR in the environment does the same.")
]

Parameters = ParamSpec("Parameters")


@dataclass(frozen=True)
class Session:
    """One use of the command line: where to call, how to print, and what is being done.

    Attributes:
        target: `host:port` or a gRPC target; None takes the client's default.
        json: Whether to print JSON.
        timeout: Seconds, as given; None where the command's default counts.
        color: Whether colours may be used.
    """

    target: str | None = None
    json: bool = False
    timeout: float | None = None
    color: bool = True
    output: Output = field(default_factory=Output)

    @contextlib.contextmanager
    def client(self) -> Iterator[SyncClient]:
        """A client for the target, closed at the end. Imports grpc, which takes a moment."""
        from meshq.client import SyncClient  # noqa: PLC0415

        with SyncClient(self.target, timeout=self.timeout or DEFAULT_TIMEOUT) as client:
            yield client


def session_of(
    context: typer.Context,
    *,
    target: str | None = None,
    json: bool = False,
    timeout: float | None = None,
    no_color: bool = False,
) -> Session:
    """The session of a command: what stands after the command counts more than what stands before."""
    if timeout is not None and not 0 < timeout < math.inf:
        raise typer.BadParameter(f"--timeout is a number of seconds above 0, not {timeout:g}")
    before = context.obj if isinstance(context.obj, Session) else Session()
    session = replace(
        before,
        target=target or before.target,
        json=json or before.json,
        timeout=before.timeout if timeout is None else timeout,
        color=before.color and not no_color,
    )
    return replace(session, output=Output(json=session.json, color=session.color))


def remember(
    context: typer.Context,
    target: TargetOption = None,
    json: JsonOption = False,
    timeout: TimeoutOption = None,
    no_color: NoColorOption = False,
) -> None:
    """Keep the options that stand before a command for `session_of`."""
    context.obj = session_of(context, target=target, json=json, timeout=timeout, no_color=no_color)


def with_session(
    function: Callable[Concatenate[Session, Parameters], None],
) -> Callable[..., None]:
    """A command from a function of a session and its own parameters.

    Its signature, from which typer makes the command, has the parameters of the function and the options
    of every command instead of the session. A parameter whose type is a dataclass stands for the options
    that are its fields, so that commands share them.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    _, *own = inspect.signature(function).parameters.values()
    groups = {item.name: hints[item.name] for item in own if dataclasses.is_dataclass(hints[item.name])}

    @functools.wraps(function)
    def command(context: typer.Context, *arguments: Any, **named: Any) -> None:
        shared = {name: named.pop(name) for name in _SHARED}
        session = session_of(context, **shared)
        for name, group in groups.items():
            named[name] = group(**{item.name: named.pop(item.name) for item in dataclasses.fields(group)})
        function(session, *arguments, **named)

    parameters = [
        inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
        *itertools.chain.from_iterable(_expanded(item, hints[item.name]) for item in own),
        *_SHARED.values(),
    ]
    keywords = [item.replace(kind=inspect.Parameter.KEYWORD_ONLY) for item in parameters[1:]]
    command.__signature__ = inspect.Signature([parameters[0], *keywords])  # type: ignore[attr-defined]
    command.__annotations__ = {item.name: item.annotation for item in parameters}
    del command.__wrapped__
    return command


def _expanded(parameter: inspect.Parameter, hint: Any) -> list[inspect.Parameter]:
    """The parameters of typer that a parameter of a command stands for."""
    if not dataclasses.is_dataclass(hint):
        return [parameter.replace(annotation=hint)]
    hints = typing.get_type_hints(hint, include_extras=True)
    kind = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(item.name, kind, default=item.default, annotation=hints[item.name])
        for item in dataclasses.fields(hint)
    ]


def _shared_parameters() -> dict[str, inspect.Parameter]:
    hints = typing.get_type_hints(remember, include_extras=True)
    _, *options = inspect.signature(remember).parameters.values()
    return {
        item.name: item.replace(annotation=hints[item.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for item in options
    }


_SHARED = _shared_parameters()
