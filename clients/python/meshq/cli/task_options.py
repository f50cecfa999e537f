"""Options that several commands about tasks share, and what they mean to the client."""

from __future__ import annotations

import datetime as dt
import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meshq.cli import inputs
from meshq.cli.declaring import duration, option, pairs

if TYPE_CHECKING:  # imports grpc
    from meshq.client.models import RetryPolicy, TaskFilter

AtOption = Annotated[
    dt.datetime | None,
    option(
        "--at",
        metavar="TIME",
        parser=inputs.parse_moment,
        help="Do not start before this time of ISO 8601.",
    ),
]


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
        option("--file", "-f", metavar="FILE", help="Read the payload from this file."),
    ] = None
    string: Annotated[
        bool, typer.Option("--string", help="Take the payload as a string, also when it is JSON.")
    ] = False
    data_file: Annotated[
        str | None,
        option(
            "--data-file",
            metavar="FILE",
            help="Send the bytes of this file as the input, instead of a payload; - is standard input.",
        ),
    ] = None
    content_type: Annotated[
        str,
        option("--content-type", metavar="TYPE", help="The media type of --data-file."),
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
        duration("--retry-delay", help="The delay after the first failed attempt; default 1s."),
    ] = None
    retry_multiplier: Annotated[
        float | None,
        option("--retry-multiplier", metavar="X", help="By how much each delay is longer; default 2."),
    ] = None
    retry_max_delay: Annotated[
        dt.timedelta | None,
        duration("--retry-max-delay", help="The longest delay; default 10m."),
    ] = None
    retry_jitter: Annotated[
        float | None,
        option(
            "--retry-jitter",
            metavar="X",
            help="The part of a delay that chance changes, 0 to 1; default 0.1.",
        ),
    ] = None
    no_retry_on: Annotated[
        list[str] | None,
        option(
            "--no-retry-on",
            metavar="ERROR",
            help="A type of error after which no attempt is made; repeatable.",
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
        option("--queue", "-q", metavar="NAME", help="The queue; by default `default`."),
    ] = None
    priority: Annotated[
        int | None,
        option("--priority", "-p", metavar="N", help="0 to 9; higher ones are served first."),
    ] = None
    label: Annotated[
        list[str] | None,
        pairs("--label", "-l", help="A label to find the task by; repeatable."),
    ] = None
    header: Annotated[
        list[str] | None,
        pairs("--header", "-H", help="Metadata for the handler; repeatable."),
    ] = None
    at: AtOption = None
    delay: Annotated[
        dt.timedelta | None,
        duration("--in", help="Do not start before so long from now, such as 10m."),
    ] = None
    max_attempts: Annotated[
        int | None,
        option(
            "--max-attempts",
            metavar="N",
            help="Attempts in all, 1 to 100; default 3. With 1 a task is never started twice.",
        ),
    ] = None
    ordering_key: Annotated[
        str | None,
        option("--ordering-key", metavar="KEY", help="Tasks with the same key run one after the other."),
    ] = None
    limit_key: Annotated[
        str | None,
        option("--limit-key", metavar="KEY", help="What the limits per key of the queue count."),
    ] = None
    rate_units: Annotated[
        int | None,
        option("--rate-units", metavar="N", help="Tokens that a start takes from rate limits; default 1."),
    ] = None
    fairness_key: Annotated[
        str | None,
        option("--fairness-key", metavar="KEY", help="Who shares the queue: keys take turns."),
    ] = None
    fairness_weight: Annotated[
        float | None,
        option("--fairness-weight", metavar="X", help="How much its key gets, 0.01 to 100; default 1."),
    ] = None
    unique: Annotated[
        str | None,
        option("--unique", metavar="KEY", help="The queue has at most one task with this key."),
    ] = None
    unique_until: Annotated[
        Until | None,
        option("--unique-until", help="For how long the task holds its key; default finished."),
    ] = None
    unique_for: Annotated[
        dt.timedelta | None,
        duration("--unique-for", help="Hold the key so long after the creation instead."),
    ] = None
    unique_policy: Annotated[
        IfTaken | None,
        option(
            "--unique-policy",
            help="When another task holds the key: take that one (the default), refuse, or replace it.",
        ),
    ] = None
    start_timeout: Annotated[
        dt.timedelta | None,
        duration("--start-timeout", help="How long the task may wait for its first start."),
    ] = None
    attempt_timeout: Annotated[
        dt.timedelta | None,
        duration("--attempt-timeout", help="How long one attempt may take."),
    ] = None
    total_timeout: Annotated[
        dt.timedelta | None,
        duration("--total-timeout", help="How long the task may take in all."),
    ] = None
    heartbeat_timeout: Annotated[
        dt.timedelta | None,
        duration("--heartbeat-timeout", help="How long a handler may be silent."),
    ] = None

    def taken(self, retries: RetryOptions) -> dict[str, Any]:
        """What was given, as the client takes it."""
        given = {
            "queue": self.queue,
            "priority": self.priority,
            "labels": inputs.parse_pairs(self.label or (), what="a label"),
            "headers": inputs.parse_pairs(self.header or (), what="a header"),
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
        option("--state", "-s", metavar="STATE", help="Only this state; repeatable."),
    ] = None
    type: Annotated[str | None, option("--type", "-t", metavar="TYPE", help="Only this type.")] = None
    queue: Annotated[str | None, option("--queue", "-q", metavar="NAME", help="Only this queue.")] = None
    label: Annotated[
        list[str] | None,
        pairs("--label", "-l", help="Only with this label; repeatable."),
    ] = None
    since: Annotated[
        str | None,
        option(
            "--since",
            metavar="TIME",
            help="Only tasks created then or later: 10m for ten minutes ago (s, m, h, d), or ISO 8601.",
        ),
    ] = None
    until: Annotated[
        str | None,
        option("--until", metavar="TIME", help="Only tasks created before."),
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
            "labels": inputs.parse_pairs(self.label or (), what="a label"),
            "min_create_time": inputs.parse_time(self.since, now),
            "max_create_time": inputs.parse_time(self.until, now),
        }
        return {name: value for name, value in found.items() if value}  # type: ignore[return-value]
