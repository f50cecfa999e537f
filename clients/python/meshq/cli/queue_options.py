"""The settings of a queue as options: what was given becomes what the client sets, `none` takes it back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meshq.cli import inputs
from meshq.cli.declaring import option, setting
from meshq.cli.task_options import RetryOptions

if TYPE_CHECKING:  # imports grpc
    from meshq.client.models import QueueSettings, TaskDefaults


@dataclass(frozen=True)
class LimitOptions:
    """What may run at a time and how fast, what is taken and what is kept."""

    max_running: Annotated[
        Any,
        setting(
            "--max-running",
            metavar="N",
            parser=inputs.parse_number,
            help="Tasks of the queue at workers at a time.",
        ),
    ] = None
    max_running_per_key: Annotated[
        Any,
        setting(
            "--max-running-per-key",
            metavar="N",
            parser=inputs.parse_number,
            help="Tasks with the same limit key at workers at a time.",
        ),
    ] = None
    rate: Annotated[
        Any,
        setting(
            "--rate",
            metavar="N/DURATION",
            parser=inputs.parse_rate,
            help="Starts of tasks of the queue, such as 100/s or 5/10s.",
        ),
    ] = None
    burst: Annotated[
        int | None,
        option("--burst", metavar="N", help="With --rate: starts that may come at once; default N."),
    ] = None
    rate_per_key: Annotated[
        Any,
        setting(
            "--rate-per-key",
            metavar="N/DURATION",
            parser=inputs.parse_rate,
            help="Starts of tasks with the same limit key.",
        ),
    ] = None
    burst_per_key: Annotated[
        int | None,
        option(
            "--burst-per-key",
            metavar="N",
            help="With --rate-per-key: starts that may come at once; default N.",
        ),
    ] = None
    max_open_tasks: Annotated[
        Any,
        setting(
            "--max-open-tasks",
            metavar="N",
            parser=inputs.parse_number,
            help="Open tasks that the queue takes.",
        ),
    ] = None
    retention: Annotated[
        Any,
        setting(
            "--retention",
            metavar="DAYS",
            parser=inputs.parse_days,
            help="For how many days ended tasks are kept: 1, 3, 7, 14, 30, 90, 180 or 365.",
        ),
    ] = None
    poison_limit: Annotated[
        Any,
        setting(
            "--poison-limit",
            metavar="N",
            parser=inputs.parse_number,
            help="Attempts in a row that may end without any answer of a worker.",
        ),
    ] = None

    def taken(self) -> dict[str, Any]:
        """What was given, as the client takes it."""
        numbers = {
            "max_running": self.max_running,
            "max_running_per_key": self.max_running_per_key,
            "max_open_tasks": self.max_open_tasks,
            "retention_days": self.retention,
            "poison_limit": self.poison_limit,
            "rate": _rate(self.rate, self.burst, "--rate", "--burst"),
            "rate_per_key": _rate(self.rate_per_key, self.burst_per_key, "--rate-per-key", "--burst-per-key"),
        }
        return _given(numbers)


def _rate(rate: Any, burst: int | None, option: str, burst_option: str) -> Any:
    from meshq.client.models import RateLimit  # noqa: PLC0415  (grpc)

    if isinstance(rate, tuple):
        units, period = rate
        return RateLimit(units, period, burst)
    if burst is not None:
        raise typer.BadParameter(f"{burst_option} goes with {option}")
    return rate


@dataclass(frozen=True)
class DefaultOptions:
    """What tasks get that do not say themselves, of the queue or of one type in it."""

    type: Annotated[
        str | None,
        option("--type", "-t", metavar="TYPE", help="The defaults below are for tasks of this type."),
    ] = None
    priority: Annotated[
        Any,
        setting(
            "--priority",
            metavar="N",
            parser=inputs.parse_number,
            help="The priority of tasks that have none.",
        ),
    ] = None
    max_attempts: Annotated[
        Any,
        setting("--max-attempts", metavar="N", parser=inputs.parse_number, help="Attempts in all."),
    ] = None
    no_retry_policy: Annotated[
        bool, typer.Option("--no-retry-policy", help="Take the default retry policy back.")
    ] = False
    start_timeout: Annotated[
        Any,
        setting(
            "--start-timeout",
            metavar="DURATION",
            parser=inputs.parse_span,
            help="How long a task may wait for its first start.",
        ),
    ] = None
    attempt_timeout: Annotated[
        Any,
        setting(
            "--attempt-timeout",
            metavar="DURATION",
            parser=inputs.parse_span,
            help="How long one attempt may take.",
        ),
    ] = None
    total_timeout: Annotated[
        Any,
        setting(
            "--total-timeout",
            metavar="DURATION",
            parser=inputs.parse_span,
            help="How long a task may take in all.",
        ),
    ] = None
    heartbeat_timeout: Annotated[
        Any,
        setting(
            "--heartbeat-timeout",
            metavar="DURATION",
            parser=inputs.parse_span,
            help="How long a handler may be silent.",
        ),
    ] = None

    def taken(self, retries: RetryOptions) -> dict[str, Any]:
        """What was given, as the client takes it; the type is left aside."""
        policy = retries.policy()
        if policy is not None and self.no_retry_policy:
            raise typer.BadParameter("--no-retry-policy goes without other options about retries")
        return _given(
            {
                "priority": self.priority,
                "max_attempts": self.max_attempts,
                "retry": inputs.NONE if self.no_retry_policy else policy,
                "schedule_to_start_timeout": self.start_timeout,
                "start_to_close_timeout": self.attempt_timeout,
                "schedule_to_close_timeout": self.total_timeout,
                "heartbeat_timeout": self.heartbeat_timeout,
            }
        )


def settings(
    limits: LimitOptions,
    defaults: DefaultOptions,
    retries: RetryOptions,
    before: Mapping[str, TaskDefaults],
) -> QueueSettings:
    """What the client is to set.

    Args:
        limits: Options.
        defaults: Options; with a type, they are merged into what is set of that type.
        retries: Options that belong to the defaults.
        before: The defaults by type that are set.
    """
    from meshq.client.models import TaskDefaults  # noqa: PLC0415  (grpc)

    found: dict[str, Any] = limits.taken()
    given = defaults.taken(retries)
    if defaults.type is None:
        return {**found, **given}  # type: ignore[typeddict-item]
    if not given:
        raise typer.BadParameter("--type goes with defaults, such as --max-attempts")
    merged = dataclasses.replace(before.get(defaults.type, TaskDefaults()), **given)
    others = {name: item for name, item in before.items() if name != defaults.type}
    kept = {} if merged == TaskDefaults() else {defaults.type: merged}
    return {**found, "type_defaults": {**others, **kept}}  # type: ignore[typeddict-item]


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given; `none` becomes None, which takes a setting back."""
    return {
        name: None if value == inputs.NONE else value for name, value in options.items() if value is not None
    }
