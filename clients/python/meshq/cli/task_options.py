"""Options that several commands about tasks share, and what they mean to the client."""

from __future__ import annotations

import datetime as dt
import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meshq.cli import inputs

if TYPE_CHECKING:  # imports grpc
    from meshq.client.models import RetryPolicy, TaskFilter


class Until(enum.StrEnum):
    """For how long a task holds its unique key."""

    STARTED = "started"
    FINISHED = "finished"


class IfTaken(enum.StrEnum):
    """What happens when another task holds the unique key."""

    EXISTING = "existing"
    REJECT = "reject"
    REPLACE = "replace"


@dataclass(frozen=True)
class InputOptions:
    """Where the input of a task comes from, beside the argument PAYLOAD."""

    file: Annotated[
        str | None,
        typer.Option(
            "--file", "-f", metavar="FILE", help="Read the payload from this file.", show_default=False
        ),
    ] = None
    string: Annotated[
        bool, typer.Option("--string", help="Take the payload as a string, also when it is JSON.")
    ] = False
    data_file: Annotated[
        str | None,
        typer.Option(
            "--data-file",
            metavar="FILE",
            help="Send the bytes of this file as the input, instead of a payload; - is standard input.",
            show_default=False,
        ),
    ] = None
    content_type: Annotated[
        str,
        typer.Option(
            "--content-type", metavar="TYPE", help="The media type of --data-file.", show_default=False
        ),
    ] = ""

    def taken(self, payload: str | None) -> dict[str, Any]:
        """The input, from whichever of the ways was used, as the client takes it."""
        if sum(source is not None for source in (payload, self.file, self.data_file)) > 1:
            raise typer.BadParameter("give one of PAYLOAD, --file and --data-file")
        if self.data_file is not None:
            return {"data": inputs.read_bytes(self.data_file), "content_type": self.content_type}
        if self.content_type:
            raise typer.BadParameter("--content-type goes with --data-file")
        if self.file is not None or payload == inputs.STDIN:
            payload = inputs.read_text(self.file or inputs.STDIN)
        return {} if payload is None else {"payload": inputs.parse_payload(payload, as_string=self.string)}


@dataclass(frozen=True)
class RetryOptions:
    """When and whether a failed attempt is made again, of a task or of the tasks of a queue."""

    retry_delay: Annotated[
        dt.timedelta | None,
        typer.Option(
            "--retry-delay",
            metavar="DURATION",
            parser=inputs.parse_span,
            help="The delay after the first failed attempt; default 1s.",
            show_default=False,
        ),
    ] = None
    retry_multiplier: Annotated[
        float | None,
        typer.Option(
            "--retry-multiplier",
            metavar="X",
            help="By how much each delay is longer; default 2.",
            show_default=False,
        ),
    ] = None
    retry_max_delay: Annotated[
        dt.timedelta | None,
        typer.Option(
            "--retry-max-delay",
            metavar="DURATION",
            parser=inputs.parse_span,
            help="The longest delay; default 10m.",
            show_default=False,
        ),
    ] = None
    retry_jitter: Annotated[
        float | None,
        typer.Option(
            "--retry-jitter",
            metavar="X",
            help="The part of a delay that chance changes, 0 to 1; default 0.1.",
            show_default=False,
        ),
    ] = None
    no_retry_on: Annotated[
        list[str] | None,
        typer.Option(
            "--no-retry-on",
            metavar="ERROR",
            help="A type of error after which no attempt is made; repeatable.",
            show_default=False,
        ),
    ] = None

    def policy(self) -> RetryPolicy | None:
        """What was given, as the client takes it; None if nothing was."""
        from meshq.client.models import RetryPolicy  # noqa: PLC0415  (grpc)

        policy = RetryPolicy(
            initial_delay=self.retry_delay,
            multiplier=self.retry_multiplier,
            max_delay=self.retry_max_delay,
            jitter=self.retry_jitter,
            non_retryable_errors=tuple(self.no_retry_on or ()),
        )
        return None if policy == RetryPolicy() else policy


@dataclass(frozen=True)
class SpecOptions:
    """What is said about a new task beside its type and input."""

    queue: Annotated[
        str | None,
        typer.Option(
            "--queue", "-q", metavar="NAME", help="The queue; by default `default`.", show_default=False
        ),
    ] = None
    priority: Annotated[
        int | None,
        typer.Option(
            "--priority", "-p", metavar="N", help="0 to 9; higher ones are served first.", show_default=False
        ),
    ] = None
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            "-l",
            metavar="KEY=VALUE",
            help="A label to find the task by; repeatable.",
            show_default=False,
        ),
    ] = None
    header: Annotated[
        list[str] | None,
        typer.Option(
            "--header",
            "-H",
            metavar="KEY=VALUE",
            help="Metadata for the handler; repeatable.",
            show_default=False,
        ),
    ] = None
    at: Annotated[
        dt.datetime | None,
        typer.Option(
            "--at",
            metavar="TIME",
            parser=inputs.parse_moment,
            help="Do not start before this time of ISO 8601.",
            show_default=False,
        ),
    ] = None
    delay: Annotated[
        dt.timedelta | None,
        typer.Option(
            "--in",
            metavar="DURATION",
            parser=inputs.parse_span,
            help="Do not start before so long from now, such as 10m.",
            show_default=False,
        ),
    ] = None
    max_attempts: Annotated[
        int | None,
        typer.Option(
            "--max-attempts",
            metavar="N",
            help="Attempts in all, 1 to 100; default 3. With 1 a task is never started twice.",
            show_default=False,
        ),
    ] = None
    ordering_key: Annotated[
        str | None,
        typer.Option(
            "--ordering-key",
            metavar="KEY",
            help="Tasks with the same key run one after the other.",
            show_default=False,
        ),
    ] = None
    limit_key: Annotated[
        str | None,
        typer.Option(
            "--limit-key",
            metavar="KEY",
            help="What the limits per key of the queue count.",
            show_default=False,
        ),
    ] = None
    rate_units: Annotated[
        int | None,
        typer.Option(
            "--rate-units",
            metavar="N",
            help="Tokens that a start takes from rate limits; default 1.",
            show_default=False,
        ),
    ] = None
    fairness_key: Annotated[
        str | None,
        typer.Option(
            "--fairness-key", metavar="KEY", help="Who shares the queue: keys take turns.", show_default=False
        ),
    ] = None
    fairness_weight: Annotated[
        float | None,
        typer.Option(
            "--fairness-weight",
            metavar="X",
            help="How much its key gets, 0.01 to 100; default 1.",
            show_default=False,
        ),
    ] = None
    unique: Annotated[
        str | None,
        typer.Option(
            "--unique",
            metavar="KEY",
            help="The queue has at most one task with this key.",
            show_default=False,
        ),
    ] = None
    unique_until: Annotated[
        Until | None,
        typer.Option(
            "--unique-until",
            help="For how long the task holds its key; default finished.",
            show_default=False,
        ),
    ] = None
    unique_for: Annotated[
        dt.timedelta | None,
        typer.Option(
            "--unique-for",
            metavar="DURATION",
            parser=inputs.parse_span,
            help="Hold the key so long after the creation instead.",
            show_default=False,
        ),
    ] = None
    unique_policy: Annotated[
        IfTaken | None,
        typer.Option(
            "--unique-policy",
            help="When another task holds the key: take that one (the default), refuse, or replace it.",
            show_default=False,
        ),
    ] = None
    start_timeout: Annotated[
        dt.timedelta | None,
        typer.Option(
            "--start-timeout",
            metavar="DURATION",
            parser=inputs.parse_span,
            help="How long the task may wait for its first start.",
            show_default=False,
        ),
    ] = None
    attempt_timeout: Annotated[
        dt.timedelta | None,
        typer.Option(
            "--attempt-timeout",
            metavar="DURATION",
            parser=inputs.parse_span,
            help="How long one attempt may take.",
            show_default=False,
        ),
    ] = None
    total_timeout: Annotated[
        dt.timedelta | None,
        typer.Option(
            "--total-timeout",
            metavar="DURATION",
            parser=inputs.parse_span,
            help="How long the task may take in all.",
            show_default=False,
        ),
    ] = None
    heartbeat_timeout: Annotated[
        dt.timedelta | None,
        typer.Option(
            "--heartbeat-timeout",
            metavar="DURATION",
            parser=inputs.parse_span,
            help="How long a handler may be silent.",
            show_default=False,
        ),
    ] = None

    def taken(self, retries: RetryOptions) -> dict[str, Any]:
        """What was given, as the client takes it."""
        given = {
            "queue": self.queue,
            "priority": self.priority,
            "labels": inputs.parse_headers(self.label or (), what="a label"),
            "headers": inputs.parse_headers(self.header or ()),
            "start_time": self.at,
            "start_delay": self.delay,
            "max_attempts": self.max_attempts,
            "retry": retries.policy(),
            "ordering_key": self.ordering_key,
            "limit_key": self.limit_key,
            "rate_units": self.rate_units,
            "fairness_key": self.fairness_key,
            "fairness_weight": self.fairness_weight,
            "schedule_to_start_timeout": self.start_timeout,
            "start_to_close_timeout": self.attempt_timeout,
            "schedule_to_close_timeout": self.total_timeout,
            "heartbeat_timeout": self.heartbeat_timeout,
            **self._uniqueness(),
        }
        return {name: value for name, value in given.items() if value is not None and value != {}}

    def _uniqueness(self) -> dict[str, Any]:
        from meshq.client.models import UniquePolicy, UniqueScope  # noqa: PLC0415  (grpc)

        if self.unique_until and self.unique_for is not None:
            raise typer.BadParameter("give one of --unique-until and --unique-for")
        if self.unique is None and (self.unique_until or self.unique_for is not None or self.unique_policy):
            raise typer.BadParameter("--unique-until, --unique-for and --unique-policy go with --unique")
        scopes = {None: None, Until.STARTED: "UNTIL_STARTED", Until.FINISHED: "UNTIL_FINISHED"}
        scope = "WINDOW" if self.unique_for is not None else scopes[self.unique_until]
        policies = {IfTaken.EXISTING: "RETURN_EXISTING", IfTaken.REJECT: "REJECT", IfTaken.REPLACE: "REPLACE"}
        return {
            "unique_key": self.unique,
            "unique_scope": scope and UniqueScope(scope),
            "unique_window": self.unique_for,
            "unique_policy": self.unique_policy and UniquePolicy(policies[self.unique_policy]),
        }


@dataclass(frozen=True)
class FilterOptions:
    """Which tasks are meant; all that is given must hold."""

    state: Annotated[
        list[str] | None,
        typer.Option(
            "--state", "-s", metavar="STATE", help="Only this state; repeatable.", show_default=False
        ),
    ] = None
    type: Annotated[
        str | None, typer.Option("--type", "-t", metavar="TYPE", help="Only this type.", show_default=False)
    ] = None
    queue: Annotated[
        str | None, typer.Option("--queue", "-q", metavar="NAME", help="Only this queue.", show_default=False)
    ] = None
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label", "-l", metavar="KEY=VALUE", help="Only with this label; repeatable.", show_default=False
        ),
    ] = None
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="TIME",
            help="Only tasks created then or later: 10m for ten minutes ago (s, m, h, d), or ISO 8601.",
            show_default=False,
        ),
    ] = None
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="TIME", help="Only tasks created before.", show_default=False),
    ] = None

    @property
    def given(self) -> bool:
        """Whether any of the options was."""
        return self != FilterOptions()

    def wanted(self) -> TaskFilter:
        """What was given, as the client takes it."""
        now = dt.datetime.now(dt.UTC)
        found: dict[str, Any] = {
            "states": inputs.parse_states(self.state or ()),
            "type": self.type,
            "queue": self.queue,
            "labels": inputs.parse_headers(self.label or (), what="a label"),
            "min_create_time": inputs.parse_time(self.since, now),
            "max_create_time": inputs.parse_time(self.until, now),
        }
        return {name: value for name, value in found.items() if value}  # type: ignore[return-value]
