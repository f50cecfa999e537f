"""What failed, for which task, and what to do: one sentence for people, one object for programs."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from meshq.cli.exits import CODE_OF_STATUS, ExitCode
from meshq.cli.naming import option_of
from meshq.cli.output import json_line, printable

if TYPE_CHECKING:  # imports grpc
    from meshq.contract.errors import MeshqError


@dataclass
class Trouble(Exception):
    """An error as the command line tells it.

    Attributes:
        message: What failed, without a full stop.
        exit_code: The exit code of the process.
        hint: What to do about it.
        details: Further entries of the JSON object.
        violations: Field and rule of what was wrong in a request.
        names: What the command at hand calls fields, where that is not the same for all commands.
    """

    message: str
    exit_code: ExitCode
    hint: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    violations: tuple[tuple[str, str], ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)

    def sentence(self) -> str:
        """The error for people; each broken rule has a line of its own."""
        text = self.message.rstrip(". \n")
        text = f"{text}; {self.hint}." if self.hint else f"{text}."
        lines = [f"  {option_of(name, self.names) or name}: {rule}" for name, rule in self.violations]
        return printable("\n".join([text, *lines]))

    def shape(self) -> dict[str, Any]:
        """The error for programs."""
        error = {"message": self.message, "exit_code": int(self.exit_code), **self.details}
        if self.hint:
            error["hint"] = self.hint
        if self.violations:
            error["violations"] = [
                {"field": name, "rule": rule, "option": option_of(name, self.names)}
                for name, rule in self.violations
            ]
        return {"error": error}


def report(trouble: Trouble, *, json: bool) -> int:
    """Print an error to stderr, and return the exit code."""
    text = json_line(trouble.shape()) if json else f"Error: {trouble.sentence()}\n"
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(text)
        sys.stderr.flush()
    return trouble.exit_code


@contextlib.contextmanager
def doing(
    what: str, hints: dict[str, str] | None = None, names: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Turn an error of the client into trouble that says what was being done.

    Args:
        what: What is done, as it follows "cannot", such as `get task 0190...`.
        hints: What to do about an error, by its reason.
        names: What the command calls fields, where that is not the same for all commands.
    """
    from meshq.contract.errors import MeshqError  # noqa: PLC0415  (grpc)

    try:
        yield
    except MeshqError as error:
        raise trouble_of(error, what, hints or {}, names) from error


def trouble_of(
    error: MeshqError, what: str, hints: dict[str, str], names: Mapping[str, str] | None = None
) -> Trouble:
    """An error of the client as trouble."""
    from meshq.contract.errors import InvalidRequest  # noqa: PLC0415  (grpc)

    violations = error.violations if isinstance(error, InvalidRequest) else ()
    hint = hints.get(str(error.reason)) or _HINTS.get(str(error.reason), "")
    message = f"Cannot {what}"
    if violations:
        message += ": the request breaks a rule" if len(violations) == 1 else ": the request breaks rules"
    else:
        # What a server advises after a semicolon is meant for programs; the hint is for this one.
        told = error.message.partition("; ")[0] if hint and error.reason in _ADVISED else error.message
        message += f": {_plain_words(told)}"
    details: dict[str, Any] = {"code": error.code.name, "reason": str(error.reason)}
    if error.metadata:
        details["metadata"] = dict(error.metadata)
    if error.retry_delay is not None:
        details["retry_delay"] = error.retry_delay
    return Trouble(
        message,
        CODE_OF_STATUS.get(error.code.name, ExitCode.INTERNAL),
        hint,
        details,
        tuple((item.field, item.rule) for item in violations),
        names or {},
    )


def _plain_words(text: str) -> str:
    """What gRPC says about an address that nobody listens at, shorter; all else as the end of a sentence."""
    if match := _NO_CONNECTION.match(text):
        return f"no gRPC server answers at {match['address']} ({match['why'].strip().lower()})"
    if match := _NO_ADDRESS.match(text):
        return f"the address {match['address']} cannot be resolved ({match['why'].strip().lower()})"
    return text[0].lower() + text[1:] if _ARTICLE.match(text) else text


_ARTICLE = re.compile(r"(The|There|No|It|A|An|This|Queue) ")
_ADVISED = {
    "TASK_NOT_ENDED",
    "QUEUE_EXISTS",
    "QUEUE_NOT_EMPTY",
    "SHARD_EXISTS",
    "SHARD_NOT_EMPTY",
    "LAST_SHARD",
}
_NO_CONNECTION = re.compile(
    r"failed to connect to all addresses.*?ipv[46]:(?:%5B)?(?P<address>\S+): "
    r".*?(?P<why>[^:]+?)(?: \(\d+\))?$",
    re.DOTALL,
)
_NO_ADDRESS = re.compile(r"errors resolving (?P<address>.+?): \[.*?(?P<why>[^:\]]+)(: )?\]?$", re.DOTALL)

_HINTS = {
    "TASK_NOT_FOUND": "`meshq task list` shows the tasks there are",
    "QUEUE_NOT_FOUND": "`meshq queue list` shows the queues there are",
    "WORKER_NOT_FOUND": "`meshq worker list` shows the workers that are connected",
    "TASK_NOT_ENDED": "cancel it first, or use --force",
    "TASK_STARTED": "what has started can only be cancelled: `meshq task cancel`",
    "UNIQUE_KEY_TAKEN": "wait for the task that holds it, or use --unique-policy existing or replace",
    "QUEUE_EXISTS": "`meshq queue set` changes it",
    "QUEUE_DRAINING": "`meshq queue get` shows who drains it, `meshq queue resume` ends it",
    "QUEUE_NOT_EMPTY": "`meshq queue purge` cancels what waits; running tasks have to end first",
    "QUEUE_FULL": "try again when workers have caught up, or raise --max-open-tasks of the queue",
    "RESUME_LOST": "list the tasks, and watch again without --resume",
    "REQUEST_ID_REUSED": "use another --request-id for another task",
    "BACKLOG_FULL": "try again when workers have caught up",
    "OVERLOADED": "try again in a moment",
    "COMPONENT_UNAVAILABLE": "check the address (--target or MESHQ_TARGET), or start meshq with `meshq up`",
    "LEDGER_UNAVAILABLE": "check that PostgreSQL runs, then try again",
    "ATTEMPTS_UNAVAILABLE": "check that PostgreSQL runs, then try again",
    "SHARD_UNAVAILABLE": "`meshq ring list` shows which shards answer",
    "SHARD_NOT_FOUND": "`meshq ring list` shows the shards there are",
    "SHARD_EXISTS": "`meshq ring list` shows the shards, `meshq ring set` changes one",
    "SHARD_NOT_EMPTY": "`meshq ring drain --wait` empties it; --force is for a shard that is OUT",
    "LAST_SHARD": "`meshq ring add` or `meshq ring activate` another one first",
    "DEADLINE_EXCEEDED": "try again, or wait longer with --timeout",
    "INTERNAL": "the server's log says more",
}


def internal(error: BaseException) -> Trouble:
    """A fault of the command line itself."""
    return Trouble(
        f"Internal error: {type(error).__name__}: {error}",
        ExitCode.INTERNAL,
        "please report it; MESHQ_TRACEBACK=1 in the environment shows where it happened",
        {"code": "INTERNAL"},
    )


def missing_extra(what: str, extra: str, error: ImportError | None) -> Trouble:
    """A command whose extra is not installed."""
    return Trouble(
        f"`{what}` needs packages that are not installed ({error.name or error})"
        if error
        else f"`{what}` needs packages that are not installed",
        ExitCode.USAGE,
        f"install them with `pip install 'meshq[{extra}]'`",
        {"code": "MISSING_EXTRA", "extra": extra},
    )
