"""What the client returns and takes: plain frozen dataclasses, free of protobuf.

Times are aware datetimes in UTC, spans are timedeltas, and what is absent is None.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypedDict, TypeVar

from meshq.client.values import JsonValue
from meshq.contract.errors import MeshqError


class Unset(enum.Enum):
    """The type of `UNSET`: None is a JSON value, so that absence needs another sign."""

    UNSET = "UNSET"

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return self.value


UNSET = Unset.UNSET


class TaskState(enum.StrEnum):
    """Where a task stands."""

    UNSPECIFIED = "UNSPECIFIED"
    WAITING = "WAITING"
    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    RETRYING = "RETRYING"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"

    @property
    def terminal(self) -> bool:
        """Whether the state never changes again."""
        return self in _TERMINAL


_TERMINAL = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED, TaskState.EXPIRED})


class TaskView(enum.StrEnum):
    """How much of a task is returned: `BASIC` leaves out input, headers and output."""

    BASIC = "BASIC"
    FULL = "FULL"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """A task to create.

    Attributes:
        type: The task type, which selects the handler.
        payload: The input as a JSON value; at most one of payload and data is given.
        data: The input as bytes.
        content_type: The media type of `data`.
        queue: The queue; None for `default`.
        headers: Free metadata for the handler.
        max_attempts: Attempts that may be made in all; None for the server's default.
    """

    type: str
    payload: JsonValue | Unset = UNSET
    data: bytes | None = None
    content_type: str = ""
    queue: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    max_attempts: int | None = None


class TaskOptions(TypedDict, total=False):
    """What may be said about a new task beside its type and payload; as in `TaskSpec`."""

    queue: str | None
    data: bytes | None
    content_type: str
    headers: Mapping[str, str]
    max_attempts: int | None


class TaskFilter(TypedDict, total=False):
    """Which tasks to list, and how; all that is given must hold.

    Attributes:
        states: Only tasks in one of these states.
        type: Only tasks of this type.
        queue: Only tasks of this queue.
        min_create_time: Only tasks created at or after this time, which must have a time zone.
        max_create_time: Only tasks created before this time.
        view: How much of each task; BASIC by default.
        page_size: Tasks in one page, 1 to 1,000.
    """

    states: Sequence[TaskState]
    type: str | None
    queue: str | None
    min_create_time: dt.datetime | None
    max_create_time: dt.datetime | None
    view: TaskView | None
    page_size: int


@dataclass(frozen=True, slots=True)
class TaskError:
    """Why an attempt failed.

    Attributes:
        type: A short stable name that programs compare, such as `ValueError` or `LOST`.
        message: For a person.
        traceback: The stack trace; only in the FULL view.
    """

    type: str
    message: str = ""
    traceback: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One unit of work: what was asked for, and what became of it.

    The input, the headers and the output are present in the FULL view. `payload` and `result` are
    UNSET and None where there is none.
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

    @property
    def done(self) -> bool:
        """Whether the task has ended."""
        return self.state.terminal

    @property
    def succeeded(self) -> bool:
        """Whether the task has ended well."""
        return self.state is TaskState.SUCCEEDED


@dataclass(frozen=True, slots=True)
class TaskProgress:
    """A running handler's latest word about itself; `fraction` is 0 to 1."""

    attempt: int
    fraction: float
    message: str = ""
    detail: JsonValue = None
    report_time: dt.datetime | None = None


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
"""What a watch yields."""


@dataclass(frozen=True, slots=True)
class Created:
    """What became of one task of a bulk creation.

    Attributes:
        index: The position of the task in what was given, counted from 0.
        task_id: The id; None when the task was not accepted.
        error: Why it was not accepted; None when it was.
    """

    index: int
    task_id: str | None
    error: MeshqError | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """The tasks that a look-up by id found, and the ids that it did not."""

    tasks: tuple[Task, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueCounts:
    """Tasks per state. Open ones are live figures, ended ones count from the queue's creation."""

    open: int = 0
    waiting: int = 0
    scheduled: int = 0
    pending: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """One queue with its figures.

    Attributes:
        arrival_rate: Tasks created per second, over about a minute.
        completion_rate: Tasks ended per second, over about a minute.
        oldest_pending_age: How long the ready task that waits longest has been ready.
        complete: False when a shard could not be asked, so that open tasks may be undercounted.
    """

    queue: str
    tenant: str = ""
    create_time: dt.datetime | None = None
    counts: QueueCounts = field(default_factory=QueueCounts)
    oldest_pending_age: dt.timedelta | None = None
    arrival_rate: float = 0.0
    completion_rate: float = 0.0
    complete: bool = True


class WorkerMode(enum.StrEnum):
    """How a worker gets its tasks."""

    UNSPECIFIED = "UNSPECIFIED"
    SESSION = "SESSION"
    POLL = "POLL"


class WorkerState(enum.StrEnum):
    """Whether a worker takes tasks."""

    UNSPECIFIED = "UNSPECIFIED"
    ACTIVE = "ACTIVE"
    DRAINING = "DRAINING"


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A connected worker; `leases` is how many tasks it holds."""

    worker_id: str
    tenant: str = ""
    mode: WorkerMode = WorkerMode.UNSPECIFIED
    state: WorkerState = WorkerState.UNSPECIFIED
    instance_id: str = ""
    session_id: str = ""
    task_types: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    slots: int = 0
    leases: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    build_id: str = ""
    user_agent: str = ""
    connect_time: dt.datetime | None = None
    last_seen_time: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """A gRPC service of the mesh, and how many instances of which component serve it."""

    service: str
    component: str
    instances: int


class InstanceState(enum.StrEnum):
    """Whether an instance takes traffic; a STALE one lost its registration without a goodbye."""

    UNSPECIFIED = "UNSPECIFIED"
    ACTIVE = "ACTIVE"
    STALE = "STALE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One process of the mesh."""

    component: str
    instance_id: str
    address: str
    admin_address: str = ""
    services: tuple[str, ...] = ()
    zone: str = ""
    version: str = ""
    weight: int = 1
    state: InstanceState = InstanceState.UNSPECIFIED
    register_time: dt.datetime | None = None


class ShardState(enum.StrEnum):
    """How a shard takes part in the ring."""

    UNSPECIFIED = "UNSPECIFIED"
    ACTIVE = "ACTIVE"
    DRAINING = "DRAINING"
    RECOVERING = "RECOVERING"
    UNREACHABLE = "UNREACHABLE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One server of the ring; `share` is the part of the key space that it owns, 0 to 1."""

    shard: str
    address: str
    state: ShardState = ShardState.UNSPECIFIED
    weight: int = 1
    share: float = 0.0
    epoch: int = 0
    ready: int = 0
    delayed: int = 0
    leased: int = 0
    used_memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Ring:
    """The shards, and the version of the ring that they make up."""

    version: int
    shards: tuple[Shard, ...]


Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """A part of a list, and the token of the next one; empty on the last page."""

    items: tuple[Item, ...]
    next_token: str


class TaskFailed(Exception):
    """A task that was waited for with `check=True` did not succeed.

    Attributes:
        task: The task as it ended: FAILED, CANCELLED or EXPIRED.
    """

    def __init__(self, task: Task) -> None:
        detail = f": {task.error.type}: {task.error.message}" if task.error else ""
        super().__init__(f"task {task.task_id} ({task.type}) ended as {task.state}{detail}")
        self.task = task
