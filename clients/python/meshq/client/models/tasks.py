"""Tasks as they come back, what happens to them, and what became of calls about many."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Final, Self, TypeAlias

from meshq.client.models.specs import UNSET, RetryPolicy, Unset
from meshq.client.models.states import AttemptOutcome, TaskState, UniquePolicy, UniqueScope, WaitingReason
from meshq.client.values import JsonValue
from meshq.contract.errors import MeshqError


@dataclass(frozen=True, slots=True)
class TaskError:
    """Why an attempt failed.

    Attributes:
        type: A short stable name that programs compare, such as `ValueError` or `LOST`.
        message: For a person.
        traceback: The stack trace; only in the FULL view, and with an attempt.
    """

    type: str
    message: str = ""
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class TaskProgress:
    """A running handler's latest word about itself; `fraction` is 0 to 1."""

    attempt: int
    fraction: float
    message: str = ""
    detail: JsonValue = None
    report_time: dt.datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What an open task waits for, with the figures behind it.

    Attributes:
        reason: What keeps it longest.
        message: The same in a sentence for people.
        due_time: With NOT_DUE, when it is due; with RATE_LIMIT, when there will be tokens.
        predecessor_task_id: With PREDECESSOR, the task that has to end first.
        limit: With QUEUE_LIMIT, KEY_BUSY and RATE_LIMIT, the limit.
        in_use: With QUEUE_LIMIT and KEY_BUSY, how many tasks are at workers.
        ahead: With IN_LINE, about how many tasks are before it.
        workers: With IN_LINE and NO_WORKER, workers that serve its queue and handle its type.
    """

    reason: WaitingReason
    message: str = ""
    due_time: dt.datetime | None = None
    predecessor_task_id: str = ""
    limit: int = 0
    in_use: int = 0
    ahead: int = 0
    workers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One unit of work: what was asked for, and what became of it.

    The specification is as in `TaskSpec`. The input, the headers and the output are present in the FULL
    view. `payload` and `result` are UNSET and None where there is none.

    Attributes:
        attempt: The current attempt, counted from 1.
        spared_attempts: How many of the attempts cost nothing, such as snoozed ones.
        next_start_time: When the next attempt may start, of a task that waits for its time.
        waiting: What an open task waits for; None when it runs or has ended.
        progress: The handler's latest word, of a running task in the FULL view.
        redriven_from: The task that this one makes good for.
        redriven_to: The task that was made to make good for this one.
    """

    task_id: str
    type: str
    queue: str
    tenant: str = ""
    payload: JsonValue | Unset = UNSET
    data: bytes | None = None
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    max_attempts: int = 0
    create_time: dt.datetime | None = None
    state: TaskState = TaskState.UNSPECIFIED
    attempt: int = 0
    attempt_start_time: dt.datetime | None = None
    end_time: dt.datetime | None = None
    worker_id: str = ""
    result: JsonValue = None
    result_data: bytes | None = None
    result_content_type: str = ""
    error: TaskError | None = None
    cancel_reason: str = ""
    cancel_time: dt.datetime | None = None
    priority: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    start_time: dt.datetime | None = None
    retry: RetryPolicy | None = None
    fairness_key: str = ""
    fairness_weight: float = 1.0
    limit_key: str = ""
    rate_units: int = 1
    ordering_key: str = ""
    unique_key: str = ""
    unique_scope: UniqueScope | None = None
    unique_window: dt.timedelta | None = None
    unique_policy: UniquePolicy | None = None
    schedule_to_start_timeout: dt.timedelta | None = None
    start_to_close_timeout: dt.timedelta | None = None
    schedule_to_close_timeout: dt.timedelta | None = None
    heartbeat_timeout: dt.timedelta | None = None
    spared_attempts: int = 0
    next_start_time: dt.datetime | None = None
    waiting: Waiting | None = None
    progress: TaskProgress | None = None
    redriven_from: str = ""
    redriven_to: str = ""

    @classmethod
    def blank(cls) -> Self:
        """A task of which nothing is set. What stays so reads as its default, as lists hold many tasks."""
        return cls.__new__(cls)

    @classmethod
    def setter(cls, name: str) -> Callable[[Self, Any], None]:
        """What sets an attribute of a blank task, in the shortest way."""
        put: Callable[[Self, Any], None] = getattr(cls, name).__set__
        return put

    def __getattr__(self, name: str) -> Any:
        # Only what is not set comes here.
        try:
            return _absent(name)
        except KeyError:
            raise AttributeError(f"a task has no {name!r}", name=name, obj=self) from None

    @property
    def done(self) -> bool:
        """Whether the task has ended."""
        return self.state.terminal

    @property
    def succeeded(self) -> bool:
        """Whether the task has ended well."""
        return self.state is TaskState.SUCCEEDED


_FIELDS: Final = {item.name: item for item in fields(Task)}


def _absent(name: str) -> Any:
    """What an attribute is that was not given; raises KeyError where there is none of that name."""
    field = _FIELDS[name]
    if field.default_factory is not MISSING:
        return field.default_factory()
    return "" if field.default is MISSING else field.default


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try at a task that has ended.

    Attributes:
        attempt: Its number, counted from 1.
        outcome: How it ended.
        worker_id: The worker that made it.
        start_time: When the worker received it.
        end_time: When its end was recorded.
        error: The error with its traceback, if it did not succeed.
        retry_delay: The delay that the worker asked for before the next attempt, if it did.
        non_retryable: Whether the worker said that another attempt is useless.
    """

    attempt: int
    outcome: AttemptOutcome
    worker_id: str = ""
    start_time: dt.datetime | None = None
    end_time: dt.datetime | None = None
    error: TaskError | None = None
    retry_delay: dt.timedelta | None = None
    non_retryable: bool = False


@dataclass(frozen=True, slots=True)
class TaskOutput:
    """A piece of what a running handler writes.

    Attributes:
        attempt: The attempt that writes.
        offset: The number of the first byte within the attempt's stream.
        stream: `log`, `stdout`, or a name of the handler's own.
        chunk: The bytes.
    """

    attempt: int
    offset: int
    stream: str
    chunk: bytes

    @property
    def text(self) -> str:
        """The chunk as text; bytes that are no UTF-8 are replaced."""
        return self.chunk.decode("utf-8", "replace")


TaskEvent: TypeAlias = Task | TaskProgress | TaskOutput
"""What the watch of one task yields."""


@dataclass(frozen=True, slots=True)
class TaskChange:
    """A change of state that a watch of many tasks yields.

    Attributes:
        task: The task after the change, in the BASIC view.
        resume_token: A later watch that begins with it goes on after this change.
    """

    task: Task
    resume_token: bytes


@dataclass(frozen=True, slots=True)
class Created:
    """What became of one task of a bulk creation.

    Attributes:
        index: The position of the task in what was given, counted from 0.
        task_id: The id; None when the task was not accepted.
        error: Why it was not accepted; None when it was.
        existing: Whether `task_id` is that of an earlier task which holds the unique_key.
    """

    index: int
    task_id: str | None
    error: MeshqError | None = None
    existing: bool = False


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of one task of those that were run together.

    Attributes:
        index: The position of the task in what was given, counted from 0.
        task: The task as it ended, whether it succeeded or not; None where there is an error.
        error: Why it was not accepted, or that it was deleted meanwhile.
    """

    index: int
    task: Task | None
    error: MeshqError | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """The tasks that a look-up by id found, and the ids that it did not."""

    tasks: tuple[Task, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Awaited:
    """How tasks stand that were waited for.

    Attributes:
        tasks: The tasks, ended or not, in the order of the ids.
        missing: The ids that are not known.
        satisfied: Whether what was waited for has happened.
    """

    tasks: tuple[Task, ...]
    missing: tuple[str, ...]
    satisfied: bool


@dataclass(frozen=True, slots=True)
class Count:
    """The number of tasks that a filter selects; `truncated` where there are more than was counted."""

    count: int
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What became of a cancellation of many tasks.

    Attributes:
        count: Open tasks that are cancelled or being cancelled because of it.
        missing: The ids that are not known.
    """

    count: int
    missing: tuple[str, ...] = ()


class TaskFailed(Exception):
    """A task that was waited for with `check=True` did not succeed.

    Attributes:
        task: The task as it ended: FAILED, CANCELLED or EXPIRED.
    """

    def __init__(self, task: Task) -> None:
        detail = f": {task.error.type}: {task.error.message}" if task.error else ""
        super().__init__(f"task {task.task_id} ({task.type}) ended as {task.state}{detail}")
        self.task = task
