"""The JSON of the command line: its keys and forms are a promise."""

from __future__ import annotations

import datetime as dt
import json

from meshq.cli import shapes
from meshq.client.models import (
    Queue,
    QueueCounts,
    Task,
    TaskError,
    TaskOutput,
    TaskProgress,
    TaskState,
    Worker,
)

TIME = dt.datetime(2026, 1, 31, 12, 0, 0, 123000, tzinfo=dt.UTC)
BASIC_KEYS = {
    *("task_id", "type", "queue", "tenant", "max_attempts", "create_time", "state", "attempt"),
    *("attempt_start_time", "end_time", "worker_id", "error", "cancel_reason", "cancel_time"),
    *("priority", "labels", "start_time", "retry", "fairness_key", "fairness_weight", "limit_key"),
    *("rate_units", "ordering_key", "unique_key", "unique_scope", "unique_window", "unique_policy"),
    *("schedule_to_start_timeout", "start_to_close_timeout", "schedule_to_close_timeout"),
    *("heartbeat_timeout", "spared_attempts", "next_start_time", "waiting", "progress"),
    *("redriven_from", "redriven_to"),
}


def make_task(**fields: object) -> Task:
    return Task(**{"task_id": "t", "type": "word_count", "queue": "default", **fields})  # type: ignore[arg-type]


def test_a_task_of_a_list_has_neither_input_nor_output() -> None:
    shape = shapes.task(make_task(payload="x", result=1, state=TaskState.SUCCEEDED), full=False)
    assert set(shape) == BASIC_KEYS


def test_a_whole_task() -> None:
    task = make_task(
        payload={"a": 1}, headers={"k": "v"}, result=None, state=TaskState.SUCCEEDED, create_time=TIME
    )
    shape = shapes.task(task, full=True)
    assert set(shape) == BASIC_KEYS | {"headers", "payload", "result"}
    assert shape["create_time"] == "2026-01-31T12:00:00.123000Z"
    assert shape["state"] == "SUCCEEDED"
    assert shape["result"] is None
    assert json.loads(json.dumps(shape)) == shape


def test_absent_input_and_output_have_no_keys() -> None:
    assert set(shapes.task(make_task(state=TaskState.PENDING), full=True)) == BASIC_KEYS | {"headers"}


def test_bytes_are_base64() -> None:
    task = make_task(
        data=b"\x00\xff",
        content_type="application/x",
        state=TaskState.SUCCEEDED,
        result_data=b"ok",
        result_content_type="text/plain",
    )
    shape = shapes.task(task, full=True)
    assert (shape["data"], shape["content_type"]) == ("AP8=", "application/x")
    assert (shape["result_data"], shape["result_content_type"]) == ("b2s=", "text/plain")
    assert "result" not in shape
    assert "payload" not in shape


def test_an_error_is_an_object() -> None:
    shape = shapes.task(make_task(error=TaskError("ValueError", "no", "trace")), full=False)
    assert shape["error"] == {"type": "ValueError", "message": "no", "traceback": "trace"}


def test_events_name_their_kind() -> None:
    assert shapes.event(make_task())["event"] == "task"
    progress = shapes.event(TaskProgress(1, 0.5, "half", {"row": 1}, TIME))
    assert progress == {
        "event": "progress",
        "progress": {
            "attempt": 1,
            "fraction": 0.5,
            "message": "half",
            "detail": {"row": 1},
            "report_time": "2026-01-31T12:00:00.123000Z",
        },
    }
    assert shapes.event(TaskOutput(1, 0, "log", b"hi\n")) == {
        "event": "output",
        "output": {"attempt": 1, "offset": 0, "stream": "log", "text": "hi\n"},
    }
    assert shapes.event(TaskOutput(1, 0, "log", b"\xff"))["output"]["data"] == "/w=="


def test_records_keep_their_fields() -> None:
    queue = Queue(queue="q", counts=QueueCounts(open=3), oldest_pending_age=dt.timedelta(seconds=1.5))
    shape = shapes.record(queue)
    assert shape["counts"]["open"] == 3
    assert shape["oldest_pending_age"] == 1.5
    assert shapes.record(Worker(worker_id="w", labels={"a": "b"}, queues=("q",)))["queues"] == ["q"]
