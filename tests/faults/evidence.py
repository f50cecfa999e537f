"""What a run has left behind: the rows of both databases, and the executions that the handlers wrote down."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from google.protobuf.struct_pb2 import Value
from psycopg.rows import TupleRow

from meshq.client import AttemptOutcome, TaskState
from meshq.internal.v1.session_frames_pb2 import LeaseToken
from meshq.v1 import task_pb2
from meshq.v1.worker_service_pb2 import Success

LEDGER = """
    SELECT id, state, attempt, 0 AS end_ms, spec FROM open_tasks
    UNION ALL
    SELECT id, state, attempt, end_ms, spec FROM finished_tasks
"""
ENDS = """
    SELECT task_id, attempt, outcome, lease_epoch, lease_number, end_ms, success FROM attempts
"""
COUNTERS = """
    SELECT coalesce(sum(created), 0), coalesce(sum(succeeded), 0), coalesce(sum(failed), 0),
           coalesce(sum(cancelled), 0), coalesce(sum(expired), 0)
    FROM queue_counters
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A task in the ledger; end is in seconds, 0 while it is open.

    Attributes:
        serial: The number in its payload; None where there is none that could be one.
    """

    task_id: str
    state: TaskState
    attempt: int
    end: float
    serial: int | None


@dataclass(frozen=True, slots=True)
class End:
    """The recorded end of an attempt; lease is (epoch, number), result the number in it."""

    task_id: str
    attempt: int
    outcome: AttemptOutcome
    lease: tuple[int, int]
    end: float
    result: int | None = None


@dataclass(frozen=True, slots=True)
class Execution:
    """A run of a handler, as it wrote it down; without an end it was cut off."""

    task_id: str
    attempt: int
    lease: tuple[int, int]
    start: float
    end: float | None
    pid: int = 0


@dataclass(frozen=True, slots=True)
class Counters:
    """The ledger's own sums over all queues."""

    created: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0


@dataclass(frozen=True)
class Evidence:
    """Everything that the checker looks at beside the history.

    Attributes:
        before: Ids of tasks that were there before the run began; they are not looked at.
        counters: What the counters have grown by since then; None if they are not looked at.
    """

    rows: list[Row] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)
    executions: list[Execution] = field(default_factory=list)
    before: frozenset[str] = frozenset()
    counters: Counters | None = None


@dataclass(frozen=True)
class Baseline:
    """What was there before a run began, where runs share a system."""

    ids: frozenset[str]
    counters: Counters
    offset: int


async def baseline(management: str, executions: Path) -> Baseline:
    """Note what there is now."""
    ids = await _fetch(management, "SELECT id FROM open_tasks UNION ALL SELECT id FROM finished_tasks")
    return Baseline(frozenset(str(row[0]) for row in ids), await _counters(management), _size(executions))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


async def open_tasks(management: str) -> int:
    """How many tasks have not ended."""
    return int((await _fetch(management, "SELECT count(*) FROM open_tasks"))[0][0])


async def collect(management: str, execution: str, executions: Path, before: Baseline) -> Evidence:
    """Read everything.

    Args:
        management: The URL of the ledger.
        execution: The URL of the execution database.
        executions: The file that the handlers have written.
        before: What is not of this run.
    """
    rows = [_row(*row) for row in await _fetch(management, LEDGER)]
    ends = [_end(row) for row in await _fetch(execution, ENDS)]
    now, then = await _counters(management), before.counters
    grown = Counters(*(getattr(now, name) - getattr(then, name) for name in Counters.__slots__))
    return Evidence(
        rows=[row for row in rows if row.task_id not in before.ids],
        ends=[end for end in ends if end.task_id not in before.ids],
        executions=read_executions(executions, before.offset),
        before=before.ids,
        counters=grown,
    )


def read_executions(path: Path, offset: int = 0) -> list[Execution]:
    """The executions in a file of the handlers, in the order of their starts."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(offset)
        return _paired(json.loads(line) for line in file if line.endswith(b"\n"))


def _paired(lines: Iterable[dict[str, object]]) -> list[Execution]:
    started: dict[tuple[object, object], dict[str, object]] = {}
    done = []
    for line in lines:
        # A process runs a lease once: the worker knows what it has.
        name = (line["pid"], line["token"])
        if line["what"] == "start":
            if name in started:
                done.append(_execution(started[name], None))
            started[name] = line
        elif (start := started.pop(name, None)) is not None:
            done.append(_execution(start, line))
    done += [_execution(start, None) for start in started.values()]
    return sorted(done, key=lambda one: one.start)


def _execution(start: dict[str, object], end: dict[str, object] | None) -> Execution:
    token = str(start["token"])
    lease = LeaseToken.FromString(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    return Execution(
        task_id=str(start["task"]),
        attempt=int(str(start["attempt"])),
        lease=(lease.epoch, lease.lease),
        start=float(str(start["t"])),
        end=float(str(end["t"])) if end else None,
        pid=int(str(start["pid"])),
    )


def _row(task_id: uuid.UUID, state: int, attempt: int, end_ms: int, spec: bytes) -> Row:
    name = task_pb2.TaskState.Name(task_pb2.TaskState.ValueType(state)).removeprefix("TASK_STATE_")
    payload = task_pb2.Task.FromString(spec).payload
    return Row(str(task_id), TaskState(name), attempt, end_ms / 1000, _number(payload))


def _end(row: TupleRow) -> End:
    task_id, attempt, outcome, epoch, number, end_ms, success = row
    name = task_pb2.AttemptOutcome.Name(task_pb2.AttemptOutcome.ValueType(outcome))
    result = _number(Success.FromString(success).result) if success else None
    ended = AttemptOutcome(name.removeprefix("ATTEMPT_OUTCOME_"))
    return End(str(task_id), attempt, ended, (epoch, number), end_ms / 1000, result)


def _number(value: Value) -> int | None:
    fields = value.struct_value.fields
    return int(fields["n"].number_value) if "n" in fields else None


async def _counters(management: str) -> Counters:
    return Counters(*(int(value) for value in (await _fetch(management, COUNTERS))[0]))


async def _fetch(url: str, query: str) -> list[TupleRow]:
    async with await psycopg.AsyncConnection.connect(url, connect_timeout=5) as connection:
        return await (await connection.execute(query.encode())).fetchall()
