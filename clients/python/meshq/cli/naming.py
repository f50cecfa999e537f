"""What fields of requests are called on the command line, so that errors speak of what was written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_EXACT: Final = {"task.type": "TYPE", "queue.queue": "NAME", "update_mask": "options"}
"""Fields whose path as a whole decides."""

_OPTIONS: Final = {
    "task_id": "ID",
    "task_ids": "ID",
    "request_id": "--request-id",
    "queue": "--queue",
    "type": "--type",
    "payload": "PAYLOAD",
    "data": "--data-file",
    "content_type": "--content-type",
    "headers": "--header",
    "labels": "--label",
    "max_attempts": "--max-attempts",
    "priority": "--priority",
    "start_time": "--at",
    "start_delay": "--in",
    "retry_policy.initial_delay": "--retry-delay",
    "retry_policy.multiplier": "--retry-multiplier",
    "retry_policy.max_delay": "--retry-max-delay",
    "retry_policy.jitter": "--retry-jitter",
    "retry_policy.non_retryable_errors": "--no-retry-on",
    "fairness_key": "--fairness-key",
    "fairness_weight": "--fairness-weight",
    "limit_key": "--limit-key",
    "rate_units": "--rate-units",
    "ordering_key": "--ordering-key",
    "unique_key": "--unique",
    "unique_scope": "--unique-until",
    "unique_window": "--unique-for",
    "unique_policy": "--unique-policy",
    "schedule_to_start_timeout": "--start-timeout",
    "start_to_close_timeout": "--attempt-timeout",
    "schedule_to_close_timeout": "--total-timeout",
    "heartbeat_timeout": "--heartbeat-timeout",
    "states": "--state",
    "min_create_time": "--since",
    "max_create_time": "--until",
    "reason": "--reason",
    "actor": "--actor",
    "max_tasks": "--max",
    "resume_token": "--resume",
    "interval": "--interval",
    "queues": "NAME",
    "max_running": "--max-running",
    "max_running_per_key": "--max-running-per-key",
    "rate": "--rate",
    "rate.burst": "--burst",
    "rate_per_key": "--rate-per-key",
    "rate_per_key.burst": "--burst-per-key",
    "retention_days": "--retention",
    "poison_limit": "--poison-limit",
    "max_open_tasks": "--max-open-tasks",
}

_OUTER: Final = re.compile(r"(task|tasks\[\d+\]|queue|filter)\.")
_INNER: Final = re.compile(r"(limits|defaults|type_defaults\[[^\]]*\])\.")


def option_of(field: str, names: Mapping[str, str] | None = None) -> str | None:
    """The option or argument that sets a field; None for a field that no option sets.

    Args:
        field: The path of the field in its request, such as `task.retry_policy.max_delay`.
        names: Names of the command at hand, which go before all others.
    """
    if field in _EXACT:
        return _EXACT[field]
    path = _INNER.sub("", _OUTER.sub("", field, count=1), count=1)
    known = {**_OPTIONS, **(names or {})}
    # The longest prefix that is known; what follows says where in the value.
    ends = [match.start() for match in re.finditer(r"[.\[]|$", path)]
    for end in reversed(ends):
        if option := known.get(path[:end]):
            return option + path[end:]
    return None
