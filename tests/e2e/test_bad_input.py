"""Whatever comes in is answered with its code and the name of the field, and leaves no trace in logs."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from meshq.client import SyncClient, TaskState
from meshq.contract import errors
from meshq.contract.status import from_rpc_error
from meshq.local.system import System
from meshq.v1 import (
    task_pb2,
    task_service_pb2,
    task_service_pb2_grpc,
    worker_service_pb2,
    worker_service_pb2_grpc,
)

UNKNOWN_ID = "00000000-0000-7000-8000-000000000000"


@pytest.fixture(autouse=True)
def nothing_in_the_logs(system: System) -> Iterator[None]:
    """No process logs a traceback for what somebody else did wrong."""
    yield
    for name in system.processes:
        assert "Traceback" not in system.logs(name), name


@pytest.fixture(scope="module")
def tasks(channel: grpc.Channel) -> Any:
    return task_service_pb2_grpc.TaskServiceStub(channel)


@pytest.fixture(scope="module")
def workers(channel: grpc.Channel) -> Any:
    return worker_service_pb2_grpc.WorkerServiceStub(channel)


def refused(call: Callable[..., Any], *arguments: Any, **options: Any) -> errors.MeshqError:
    """The error that a call, or the stream that it opens, is answered with."""

    def answered() -> object:
        answer = call(*arguments, **options)
        return list(answer) if isinstance(answer, Iterator) else answer

    with pytest.raises(grpc.RpcError) as caught:
        answered()
    return from_rpc_error(caught.value)


def assert_field(error: errors.MeshqError, field: str) -> None:
    assert isinstance(error, errors.InvalidRequest), error
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.reason is errors.Reason.INVALID_FIELD
    assert [item.field for item in error.violations] == [field]
    assert all(item.rule for item in error.violations)


BAD_TASKS = [
    pytest.param({}, "task.type", id="no type"),
    pytest.param({"type": "a b"}, "task.type", id="a type with a space"),
    pytest.param({"type": "x" * 129}, "task.type", id="a long type"),
    pytest.param({"type": "t", "queue": "two words"}, "task.queue", id="a queue with a space"),
    pytest.param({"type": "t", "queue": "ü"}, "task.queue", id="a queue with an umlaut"),
    pytest.param({"type": "t", "max_attempts": -1}, "task.max_attempts", id="attempts below 1"),
    pytest.param({"type": "t", "max_attempts": 101}, "task.max_attempts", id="attempts above 100"),
    pytest.param({"type": "t", "payload": "x" * (1 << 20)}, "task.payload", id="a payload over 1 MiB"),
    pytest.param({"type": "t", "content_type": "x" * 129}, "task.content_type", id="a long content type"),
    pytest.param({"type": "t", "headers": {"k" * 65: "v"}}, "task.headers", id="a long header key"),
    pytest.param({"type": "t", "headers": {str(n): "" for n in range(33)}}, "task.headers", id="33 headers"),
]


@pytest.mark.parametrize(("task", "field"), BAD_TASKS)
def test_a_bad_task(tasks: Any, rest: Any, task: dict[str, Any], field: str) -> None:
    message = task_pb2.Task(**{key: value for key, value in task.items() if key != "payload"})
    if "payload" in task:
        message.payload.string_value = task["payload"]
    request = task_service_pb2.CreateTaskRequest(task=message)
    error = refused(tasks.CreateTask, request, timeout=20)
    assert isinstance(error, errors.InvalidRequest)
    assert all(item.field.startswith(field) for item in error.violations), error.violations
    answer = rest("POST", "/v1/tasks", task)
    assert (answer.status, answer.json["code"], answer.reason) == (400, 3, "INVALID_FIELD")
    assert all(name.startswith(field) for name in answer.violations), answer.violations


@pytest.mark.parametrize("task_id", ["nonsense", "1", "x" * 500, UNKNOWN_ID + "0"])
def test_a_malformed_id(tasks: Any, rest: Any, task_id: str) -> None:
    for call, request in (
        (tasks.GetTask, task_service_pb2.GetTaskRequest(task_id=task_id)),
        (tasks.CancelTask, task_service_pb2.CancelTaskRequest(task_id=task_id)),
        (tasks.DeleteTask, task_service_pb2.DeleteTaskRequest(task_id=task_id)),
        (tasks.RunTask, task_service_pb2.RunTaskRequest(task_id=task_id)),
        (
            tasks.WatchTask,
            task_service_pb2.WatchTaskRequest(task_id=task_id),
        ),
    ):
        assert_field(refused(call, request, timeout=20), "task_id")
    answer = rest("GET", f"/v1/tasks/{task_id}")
    assert (answer.status, list(answer.violations)) == (400, ["task_id"])
    answer = rest("GET", f"/v1/tasks/{task_id}:watch")
    assert (answer.status, list(answer.violations)) == (400, ["task_id"])


def test_no_such_task(tasks: Any, rest: Any) -> None:
    error = refused(tasks.GetTask, task_service_pb2.GetTaskRequest(task_id=UNKNOWN_ID), timeout=20)
    assert (type(error), error.reason) == (errors.NotFound, errors.Reason.TASK_NOT_FOUND)
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("POST", ":cancel"),
        ("GET", ":watch"),
        ("POST", ":run"),
    ):
        answer = rest(method, f"/v1/tasks/{UNKNOWN_ID}{path}", {} if method == "POST" else None)
        assert (answer.status, answer.reason) == (404, "TASK_NOT_FOUND"), (method, path)


@pytest.mark.parametrize(
    ("query", "fields", "field"),
    [
        ("page_size=-1", {"page_size": -1}, "page_size"),
        ("page_size=1001", {"page_size": 1_001}, "page_size"),
        ("page_token=not+a+token", {"page_token": "not a token"}, "page_token"),
        ("queue=two+words", {"queue": "two words"}, "queue"),
    ],
)
def test_a_bad_page(tasks: Any, rest: Any, query: str, fields: dict[str, Any], field: str) -> None:
    request = task_service_pb2.ListTasksRequest(**fields)
    assert_field(refused(tasks.ListTasks, request, timeout=20), field)
    answer = rest("GET", f"/v1/tasks?{query}")
    assert (answer.status, list(answer.violations)) == (400, [field])
    if field in {"page_size", "page_token"}:
        for path in ("/v1/queues", "/v1/workers"):
            answer = rest("GET", f"{path}?{query}")
            assert (answer.status, list(answer.violations)) == (400, [field]), path
            assert "not 'not a token'" in str(answer.violations) or field == "page_size"


def test_a_time_that_is_none(tasks: Any) -> None:
    """Over REST it could not even be written."""
    bad_time, bad_length = Timestamp(seconds=-(2**62)), Duration(seconds=5, nanos=-6)
    task = task_pb2.Task(type="t", start_time=bad_time)
    update = task_pb2.Task(task_id=UNKNOWN_ID, start_delay=bad_length)
    for call, request, field in (
        (tasks.CreateTask, task_service_pb2.CreateTaskRequest(task=task), "task.start_time"),
        (tasks.RunTask, task_service_pb2.RunTaskRequest(task=task), "task.start_time"),
        (tasks.UpdateTask, task_service_pb2.UpdateTaskRequest(task=update), "task.start_delay"),
        (
            tasks.RunTask,
            task_service_pb2.RunTaskRequest(task_id=UNKNOWN_ID, wait_timeout=bad_length),
            "wait_timeout",
        ),
        (tasks.ListTasks, task_service_pb2.ListTasksRequest(max_create_time=bad_time), "max_create_time"),
        (tasks.CountTasks, task_service_pb2.CountTasksRequest(min_create_time=bad_time), "min_create_time"),
    ):
        error = refused(call, request, timeout=20)
        assert_field(error, field)
        value = "5, nanos -6" if field in {"task.start_delay", "wait_timeout"} else f"{-(2**62)}, nanos 0"
        assert error.message.endswith(f", not seconds {value}")


def test_a_frame_of_100_000_tasks(tasks: Any) -> None:
    frame = task_service_pb2.IngestTasksRequest()
    frame.tasks.extend([task_pb2.Task(type="t")] * 100_000)
    error = refused(tasks.IngestTasks, iter([frame]), timeout=30)
    assert_field(error, "tasks")
    request = task_service_pb2.BatchCreateTasksRequest(tasks=frame.tasks)
    assert_field(refused(tasks.BatchCreateTasks, request, timeout=30), "tasks")


def test_a_batch_of_none(tasks: Any, rest: Any) -> None:
    request = task_service_pb2.BatchCreateTasksRequest()
    assert_field(refused(tasks.BatchCreateTasks, request, timeout=20), "tasks")
    assert list(rest("POST", "/v1/tasks:batchGet", {}).violations) == ["task_ids"]


@pytest.mark.parametrize("text", ["{bad", "[]x", "word", '{"type": "t"', '{"max_attempts": "many"}', "\x00"])
def test_json_that_is_none(rest: Any, text: str) -> None:
    answer = rest("POST", "/v1/tasks", text)
    assert (answer.status, answer.json["code"]) == (400, 3)
    assert answer.json["message"]
    assert answer.reason == "INVALID_FIELD"
    assert list(answer.violations) == ["body"]


def test_unknown_methods_and_paths(channel: grpc.Channel, rest: Any) -> None:
    for method in (
        "/meshq.v1.TaskService/Nonsense",
        "/meshq.v1.Nonsense/Do",
        "/meshq.v1.WorkerService/Nonsense",
    ):
        call = channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
        error = refused(call, b"", timeout=20)
        assert error.code is grpc.StatusCode.UNIMPLEMENTED, method
    for method, path in (("GET", "/v1/nothing"), ("PATCH", "/v1/tasks"), ("POST", "/nonsense")):
        answer = rest(method, path)
        assert (answer.status, answer.json["code"]) == (404, 12), path
        assert answer.reason == "METHOD_UNKNOWN"


def test_bytes_that_are_no_message(channel: grpc.Channel) -> None:
    for method in ("TaskService/CreateTask", "WorkerService/PollTasks", "QueueService/GetQueue"):
        call = channel.unary_unary(
            f"/meshq.v1.{method}", request_serializer=bytes, response_deserializer=bytes
        )
        error = refused(call, b"\xff\xff\xff\xff", timeout=20)
        assert error.code in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL}, method


def test_a_deadline_that_is_over(tasks: Any, rest: Any) -> None:
    request = task_service_pb2.CreateTaskRequest(task=task_pb2.Task(type="word_count"))
    for timeout in (-1.0, 0.0, 0.000_001):
        error = refused(tasks.CreateTask, request, timeout=timeout)
        assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED, timeout
    answer = rest("POST", "/v1/tasks:run", {"type": "nobody_serves_this"}, {"grpc-timeout": "200m"})
    # On a busy machine gRPC itself notices before the server does, and gives no details.
    assert (answer.status, answer.json["code"]) == (504, grpc.StatusCode.DEADLINE_EXCEEDED.value[0])


def test_a_type_that_the_worker_does_not_know(client: SyncClient, workers: Any) -> None:
    """The type waits; nobody who does not offer it is given it, and whoever offers it may refuse it."""
    task_type = f"unknown_{uuid.uuid4().hex[:8]}"
    task = client.create(task_type, "x", max_attempts=1)
    poll = worker_service_pb2.PollTasksRequest(worker_id="bad-input", task_types=["word_count_not_this"])
    poll.wait_timeout.FromMilliseconds(300)
    assert not workers.PollTasks(poll, timeout=20).assignments
    assert client.get(task.task_id).state is TaskState.PENDING
    poll.task_types[:] = [task_type]
    poll.wait_timeout.FromSeconds(10)
    (leased,) = workers.PollTasks(poll, timeout=20).assignments
    error = task_pb2.TaskError(type="UNKNOWN_TASK_TYPE", message=f"no handler for {task_type}")
    result = worker_service_pb2.TaskResult(
        lease_token=leased.lease_token, failure=worker_service_pb2.Failure(error=error)
    )
    workers.CompleteTasks(
        worker_service_pb2.CompleteTasksRequest(worker_id="bad-input", results=[result]), timeout=20
    )
    ended = client.run(task_id=task.task_id, timeout=20)
    assert ended.state is TaskState.FAILED
    assert ended.error is not None
    assert ended.error.type == "UNKNOWN_TASK_TYPE"


@pytest.mark.parametrize("payload", [None, 5, ["a"], {"nonsense": 1}])
def test_an_input_that_the_handler_does_not_take(client: SyncClient, payload: Any) -> None:
    task = client.run("word_count", payload, max_attempts=1, timeout=20)
    assert task.state is TaskState.FAILED
    assert task.error is not None
    assert task.error.type == "INVALID_INPUT", task.error


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "worker_id"),
        ({"worker_id": "a b", "task_types": ["t"]}, "worker_id"),
        ({"worker_id": "w"}, "task_types"),
        ({"worker_id": "w", "task_types": ["a b"]}, "task_types"),
        ({"worker_id": "w", "task_types": ["t"], "queues": ["a b"]}, "queues"),
        ({"worker_id": "w", "task_types": ["t"], "max_tasks": -1}, "max_tasks"),
        ({"worker_id": "w", "task_types": ["t"], "max_tasks": 1_001}, "max_tasks"),
    ],
)
def test_a_bad_poll(workers: Any, rest: Any, fields: dict[str, Any], field: str) -> None:
    error = refused(workers.PollTasks, worker_service_pb2.PollTasksRequest(**fields), timeout=20)
    assert isinstance(error, errors.InvalidRequest)
    assert error.violations[0].field.startswith(field)
    answer = rest("POST", "/v1/leases:poll", fields)
    assert answer.status == 400
    assert next(iter(answer.violations)).startswith(field)


def test_tokens_that_are_none(workers: Any) -> None:
    success = worker_service_pb2.Success()
    for token in (b"", b"nonsense", b"\x00" * 500):
        result = worker_service_pb2.TaskResult(lease_token=token, success=success)
        request = worker_service_pb2.CompleteTasksRequest(worker_id="w", results=[result])
        error = refused(workers.CompleteTasks, request, timeout=20)
        assert_field(error, "results[0].lease_token")
        assert f"not {len(token)} other bytes" in error.message


def test_a_session_that_does_not_begin_with_hello(workers: Any) -> None:
    frame = worker_service_pb2.ConnectRequest(credits=worker_service_pb2.Credits(total=1))
    error = refused(workers.Connect, iter([frame]), timeout=20)
    assert (type(error), error.reason) == (errors.PreconditionFailed, errors.Reason.HELLO_EXPECTED)
    hello = worker_service_pb2.Hello(protocol_version=99, worker_id="w", task_types=["t"])
    error = refused(workers.Connect, iter([worker_service_pb2.ConnectRequest(hello=hello)]), timeout=20)
    assert error.reason is errors.Reason.PROTOCOL_VERSION
    empty = worker_service_pb2.Hello(protocol_version=1)
    error = refused(workers.Connect, iter([worker_service_pb2.ConnectRequest(hello=empty)]), timeout=20)
    assert isinstance(error, errors.InvalidRequest)
    assert all(item.field.startswith("hello.") for item in error.violations)


def test_callers_that_go_away(tasks: Any, system: System) -> None:
    """A watch and a run whose callers vanish are ended quietly."""
    created = tasks.CreateTask(
        task_service_pb2.CreateTaskRequest(task=task_pb2.Task(type="nobody_serves_this")), timeout=20
    )
    watch = tasks.WatchTask(task_service_pb2.WatchTaskRequest(task_id=created.task_id))
    assert next(watch).task.task_id == created.task_id
    watch.cancel()
    run = tasks.RunTask.future(task_service_pb2.RunTaskRequest(task_id=created.task_id), timeout=20)
    run.cancel()
    assert tasks.CancelTask(task_service_pb2.CancelTaskRequest(task_id=created.task_id), timeout=20)


def test_the_system_is_as_well_as_before(rest: Any, client: SyncClient) -> None:
    assert rest("GET", "/healthz").status == 200
    assert client.run("word_count", "still here", timeout=20).result == {"word_count": 2}
    assert json.loads(rest("GET", "/v1/services").text)["services"]
