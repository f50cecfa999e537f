"""The whole life of a task on the command line, against a gRPC server whose answers the tests write."""

from __future__ import annotations

import base64
import datetime as dt
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from fixtures.command_line import DEADLINE, FAILED, ID, SUCCEEDED, Meshq, Terminal, inside, lines, make_task

from meshq.contract import errors
from meshq.contract.status import to_status
from meshq.v1 import task_pb2, task_service_pb2, worker_service_pb2

__all__ = ["inside"]

OTHER = "0199aaaa-0000-7000-8000-000000000002"
ALL_OPTIONS = [
    *("--priority", "5", "--label", "team=a", "-l", "run=7", "--in", "1h30m"),
    *("--retry-delay", "500ms", "--retry-multiplier", "3", "--retry-max-delay", "1d", "--retry-jitter", "0"),
    *("--no-retry-on", "ValueError", "--ordering-key", "o", "--limit-key", "l", "--rate-units", "2"),
    *("--fairness-key", "f", "--fairness-weight", "0.5"),
    *("--unique", "u", "--unique-for", "2h", "--unique-policy", "replace"),
    *("--start-timeout", "1s", "--attempt-timeout", "2s", "--total-timeout", "3s"),
    *("--heartbeat-timeout", "250ms"),
]


# Creating


@pytest.mark.parametrize("command", ["create", "run"])
def test_all_that_can_be_said_about_a_task(inside: Meshq, command: str) -> None:
    inside("task", command, "t", *ALL_OPTIONS)
    task = inside.server.requests[0].task
    assert (task.priority, dict(task.labels), task.start_delay.seconds) == (
        5,
        {"team": "a", "run": "7"},
        5_400,
    )
    policy = task.retry_policy
    assert (policy.initial_delay.nanos, policy.multiplier, policy.max_delay.seconds) == (5 * 10**8, 3, 86_400)
    assert policy.HasField("jitter")
    assert list(policy.non_retryable_errors) == ["ValueError"]
    assert (task.ordering_key, task.limit_key, task.rate_units) == ("o", "l", 2)
    assert (task.fairness_key, task.fairness_weight, task.unique_key) == ("f", 0.5, "u")
    assert task.unique_scope == task_pb2.UNIQUE_SCOPE_WINDOW
    assert (task.unique_window.seconds, task.unique_policy) == (7_200, task_pb2.UNIQUE_POLICY_REPLACE)
    timeouts = [task.schedule_to_start_timeout, task.start_to_close_timeout]
    timeouts += [task.schedule_to_close_timeout, task.heartbeat_timeout]
    assert [item.ToMilliseconds() for item in timeouts] == [1_000, 2_000, 3_000, 250]


def test_a_time_to_start_and_a_scope(inside: Meshq) -> None:
    inside(
        "task",
        "create",
        "t",
        "--at",
        "2026-01-31T12:00:00+01:00",
        "--unique",
        "u",
        "--unique-until",
        "started",
    )
    task = inside.server.requests[0].task
    assert task.start_time.ToDatetime(dt.UTC) == dt.datetime(2026, 1, 31, 11, tzinfo=dt.UTC)
    assert task.unique_scope == task_pb2.UNIQUE_SCOPE_UNTIL_STARTED


def test_broken_rules_are_told_by_option(inside: Meshq) -> None:
    violations = [
        errors.FieldViolation("task.priority", "must be 0 to 9, not 12"),
        errors.FieldViolation("task.retry_policy.max_delay", "must be 0 to 30 days"),
        errors.FieldViolation("task.labels['a b']", "must be 1 to 64 characters"),
    ]
    inside.server.answer = lambda _: errors.InvalidRequest(violations)
    run = inside("task", "create", "t", code=2)
    assert [line.split(":")[0].strip() for line in run.stderr.splitlines()[1:]] == [
        "--priority",
        "--retry-max-delay",
        "--label['a b']",
    ]
    (shape,) = lines(inside("task", "create", "t", "--json", code=2).stderr)
    assert shape["error"]["violations"][0]["option"] == "--priority"


def test_a_taken_key_is_a_conflict(inside: Meshq) -> None:
    inside.server.answer = lambda _: errors.Conflict(
        "task x holds the unique key", errors.Reason.UNIQUE_KEY_TAKEN, task_id=OTHER
    )
    run = inside("task", "create", "t", "--unique", "u", "--unique-policy", "reject", "--json", code=5)
    assert lines(run.stderr)[0]["error"]["metadata"] == {"task_id": OTHER}


def accepted(*ids: str) -> Iterator[task_service_pb2.CreateTaskResult]:
    return iter(task_service_pb2.CreateTaskResult(task_id=item) for item in ids)


def test_bulk_reads_objects(inside: Meshq) -> None:
    inside.server.results = accepted("1", "2", "3")
    text = (
        '{"type": "a", "payload": null, "labels": {"x": "y"}, "start_delay": "10m", "priority": 9}\n\n'
        '{"type": "b", "data": "AP8=", "retry": {"initial_delay": 2}, "unique_scope": "UNTIL_STARTED"}\n'
        '{"type": "c", "start_time": "2026-01-31T12:00:00Z", "heartbeat_timeout": 0.5}\n'
    )
    run = inside("task", "bulk", "--priority", "1", "--queue", "q", stdin=text.encode())
    assert run.stdout.splitlines() == ["1", "2", "3"]
    assert run.stderr == "3 created.\n"
    first, second, third = inside.server.ingested
    assert (first.payload.WhichOneof("kind"), first.priority, first.queue) == ("null_value", 9, "q")
    assert (first.start_delay.seconds, dict(first.labels)) == (600, {"x": "y"})
    assert (second.data, second.priority, second.retry_policy.initial_delay.seconds) == (b"\x00\xff", 1, 2)
    assert third.heartbeat_timeout.nanos == 5 * 10**8


def test_bulk_reads_payloads_of_one_type(inside: Meshq, tmp_path: Path) -> None:
    inside.server.results = accepted("1", "2")
    (tmp_path / "lines").write_text("3\nthree\n")
    inside("task", "bulk", str(tmp_path / "lines"), "--type", "t", "--string")
    assert [task.payload.string_value for task in inside.server.ingested] == ["3", "three"]


def test_bulk_tells_what_was_refused_and_what_existed(inside: Meshq) -> None:
    bad = errors.InvalidRequest.field("tasks[1].priority", "must be 0 to 9, not 12")
    results = [
        task_service_pb2.CreateTaskResult(task_id="1", existing=True),
        task_service_pb2.CreateTaskResult(error=to_status(bad)),
        task_service_pb2.CreateTaskResult(task_id="3"),
    ]
    text = b'{"type": "a"}\n' * 3
    inside.server.results = iter(results)
    run = inside("task", "bulk", stdin=text, code=2)
    assert run.stdout.splitlines() == ["1", "3"]
    assert "Cannot create the task of line 2: the request breaks a rule.\n  --priority: must be" in run.stderr
    assert run.stderr.endswith("1 created, 1 existed, 1 refused.\n")
    inside.server.results = iter(results)
    shapes = lines(inside("task", "bulk", "--json", stdin=text, code=2).stdout)
    assert [(item["line"], item["task_id"], item["existing"]) for item in shapes] == [
        *((1, "1", True), (2, None, False), (3, "3", False)),
    ]
    assert shapes[1]["error"]["reason"] == "INVALID_FIELD"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("no json", "Line 2 of standard input is no task: "),
        ('{"payload": 1}', "it must be a JSON object with a type"),
        ('{"type": "a", "prio": 1}', "it must not have prio; there are "),
        ('{"type": "a", "start_delay": "soon"}', "'soon' is no length of time"),
        ('{"type": "a", "unique_scope": "EVER"}', "'EVER' is not a valid UniqueScope"),
    ],
)
def test_a_line_that_is_no_task_ends_the_reading(inside: Meshq, line: str, says: str) -> None:
    inside.server.results = accepted("1")
    run = inside("task", "bulk", stdin=f'{{"type": "a"}}\n{line}\n{{"type": "b"}}\n'.encode(), code=2)
    assert run.stdout == "1\n"
    assert says in run.stderr
    assert [task.type for task in inside.server.ingested] == ["a"]


# Reading


def test_get_says_why_a_task_waits_and_what_was_tried(inside: Meshq) -> None:
    inside.server.answer = lambda _: make_task(
        state="TASK_STATE_RETRYING",
        attempt=2,
        spared_attempts=1,
        next_start_time="2126-01-31T12:00:00Z",
        waiting={
            "reason": "WAITING_REASON_KEY_BUSY",
            "message": "its key has as many tasks at workers as the queue allows",
            "limit": 2,
            "in_use": 2,
        },
        labels={"team": "a"},
        redriven_from=OTHER,
    )
    attempt = task_pb2.Attempt(attempt=1, outcome=task_pb2.ATTEMPT_OUTCOME_FAILED, worker_id="w-7")
    attempt.error.type, attempt.error.message, attempt.error.traceback = "Timeout", "no answer", "the trace"
    attempt.retry_delay.FromSeconds(90)
    found = task_service_pb2.ListAttemptsResponse(attempts=[attempt])
    inside.server.answers["ListAttempts"] = lambda _: found
    text = inside("task", "get", ID).stdout
    for part in (
        "as the queue allows [KEY_BUSY]: 2 of 2 at workers",
        "1 of 3 (number 2; 1 before it cost nothing)",
        "2126-01-31 12:00:00 (in ",
        "team=a",
        OTHER,
        "w-7",
        "Timeout: no answer; again after 1 min 30 s",
    ):
        assert part in text
    (shape,) = lines(inside("task", "get", ID, "--json").stdout)
    assert shape["waiting"]["reason"] == "KEY_BUSY"
    assert shape["attempts"][0]["retry_delay"] == 90
    assert "the trace" in inside("task", "attempts", ID).stdout
    assert lines(inside("task", "attempts", ID, "--json").stdout)[0]["outcome"] == "FAILED"


def test_get_shows_the_rest_when_nobody_knows_the_attempts(inside: Meshq) -> None:
    inside.server.answers["ListAttempts"] = lambda _: errors.InternalError("away")
    assert "the attempts cannot be shown now" in inside("task", "get", ID).stdout
    assert lines(inside("task", "get", ID, "--json").stdout)[0]["attempts"] is None


def test_get_shows_progress(inside: Meshq) -> None:
    inside.server.answer = lambda _: make_task(
        state="TASK_STATE_RUNNING", progress={"attempt": 1, "fraction": 0.25, "message": "reading"}
    )
    assert "█████░░░░░░░░░░░░░░░ 25% reading" in inside("task", "get", ID).stdout


def test_count_and_list_by_label(inside: Meshq) -> None:
    inside.server.answers["CountTasks"] = lambda _: task_service_pb2.CountTasksResponse(
        count=1_000_000, truncated=True
    )
    assert inside("task", "count", "--label", "a=b", "--state", "failed").stdout == "more than 1000000\n"
    request = inside.server.requests[-1]
    assert (list(request.labels), list(request.states)) == (["a=b"], [task_pb2.TASK_STATE_FAILED])
    (shape,) = lines(inside("task", "count", "--json").stdout)
    assert shape == {"count": 1_000_000, "truncated": True}
    inside.server.answer = lambda _: task_service_pb2.ListTasksResponse()
    inside("task", "list", "-l", "a=b", "-l", "c=d")
    assert list(inside.server.requests[-1].labels) == ["a=b", "c=d"]


# Changing


def test_update_names_what_changes(inside: Meshq) -> None:
    inside.server.answer = lambda _: make_task()
    run = inside("task", "update", ID, "new input", "--priority", "0", "--in", "0", "--no-labels")
    assert run.stdout == f"Task {ID} is changed; it is PENDING.\n"
    (request,) = inside.server.requests
    assert list(request.update_mask.paths) == ["labels", "payload", "priority", "start_delay"]
    assert request.task.payload.string_value == "new input"


def test_a_task_that_has_started_is_not_changed(inside: Meshq) -> None:
    inside.server.answer = lambda _: errors.PreconditionFailed("it runs", errors.Reason.TASK_STARTED)
    run = inside("task", "update", ID, "--priority", "1", code=5)
    assert run.stderr.endswith("it runs; what has started can only be cancelled: `meshq task cancel`.\n")


def test_several_ids_are_cancelled(inside: Meshq) -> None:
    inside.server.answers["CancelTasks"] = lambda _: task_service_pb2.CancelTasksResponse(
        cancelled_count=1, complete=True, missing_task_ids=[OTHER]
    )
    run = inside("task", "cancel", ID, OTHER, "--reason", "late", code=3)
    assert run.stdout == "1 task is cancelled or being cancelled.\n"
    assert OTHER in run.stderr
    (request,) = inside.server.requests
    assert (list(request.task_ids), request.reason) == ([ID, OTHER], "late")


def test_nothing_is_cancelled_by_a_filter_without_agreement(inside: Meshq) -> None:
    inside.server.answers["CountTasks"] = lambda _: task_service_pb2.CountTasksResponse(count=1_234)
    run = inside("task", "cancel", "--queue", "q", stdin=b"y\n", code=2)
    assert run.stderr == "Error: Nobody can be asked: Cancel 1,234 tasks?; give --yes to go on without.\n"
    (request,) = inside.server.requests
    assert task_pb2.TASK_STATE_PENDING in request.states
    assert task_pb2.TASK_STATE_FAILED not in request.states


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"\n", 130)])
def test_a_person_is_asked(inside: Meshq, answer: bytes, code: int) -> None:
    inside.server.answers["CountTasks"] = lambda _: task_service_pb2.CountTasksResponse(count=7)
    inside.server.answers["DeleteTasks"] = lambda _: task_service_pb2.DeleteTasksResponse(
        deleted_count=7, complete=True
    )
    with Terminal(inside, "task", "delete", "--label", "run=7") as terminal:
        terminal.read_until(r"Delete 7 tasks\? \[y/N\]")
        terminal.write(answer)
        terminal.read_until("7 tasks are deleted" if code == 0 else "Nothing was changed")
        assert terminal.process.wait(DEADLINE) == code


def test_filters_go_on_until_complete(inside: Meshq) -> None:
    steps = iter([(3, False), (2, True)])

    def redriven(_: Any) -> Any:
        count, complete = next(steps)
        return task_service_pb2.RedriveTasksResponse(redriven_count=count, complete=complete)

    inside.server.answers["RedriveTasks"] = redriven
    run = inside("task", "redrive", "--queue", "q", "--rate", "20", "--max", "10", "--yes", "--json")
    assert lines(run.stdout) == [{"redriven_count": 5}]
    assert [(item.rate, item.max_tasks) for item in inside.server.requests] == [(20, 10), (20, 7)]


def test_redriving_by_id_prints_the_new_ids(inside: Meshq) -> None:
    inside.server.answer = lambda _: make_task(task_id=OTHER, redriven_from=ID)
    assert inside("task", "redrive", ID, ID).stdout == f"{OTHER}\n{OTHER}\n"
    assert lines(inside("task", "redrive", ID, "--json").stdout)[0]["redriven_from"] == ID


# Waiting and watching


def test_waiting_for_several(inside: Meshq) -> None:
    def awaited(*tasks: Any, **more: Any) -> Any:
        return lambda _: task_service_pb2.AwaitTasksResponse(tasks=tasks, **more)

    answers = inside.server.answers
    answers["AwaitTasks"] = awaited(SUCCEEDED, satisfied=True)
    assert "SUCCEEDED" in inside("task", "wait", ID, "--any").stdout
    assert inside.server.requests[-1].mode == task_service_pb2.AWAIT_MODE_ANY
    answers["AwaitTasks"] = awaited(SUCCEEDED, FAILED, satisfied=True)
    assert len(lines(inside("task", "wait", ID, OTHER, "--json", code=1).stdout)) == 2
    answers["AwaitTasks"] = awaited(missing_task_ids=[OTHER])
    assert OTHER in inside("task", "wait", OTHER, code=3).stderr
    answers["AwaitTasks"] = awaited(make_task(), SUCCEEDED)
    run = inside("task", "wait", ID, OTHER, "--timeout", "0.2", code=4)
    assert "1 of 2 tasks have not ended after 0.2 s; they go on" in run.stderr


def changes(context: grpc.ServicerContext) -> Iterator[Any]:
    yield task_service_pb2.WatchTasksResponse(task=make_task(), resume_token=b"1")
    yield task_service_pb2.WatchTasksResponse(task=FAILED, resume_token=b"2")
    yield errors.Aborted("too much has happened", errors.Reason.RESUME_LOST)


def test_a_filter_is_watched(inside: Meshq) -> None:
    inside.server.events = changes
    token = base64.b64encode(b"0").decode()
    run = inside("task", "watch", "--queue", "q", "--state", "failed", "--resume", token, "--json", code=4)
    shapes = lines(run.stdout)
    assert [item["task"]["state"] for item in shapes] == ["PENDING", "FAILED"]
    assert base64.b64decode(shapes[1]["resume_token"]) == b"2"
    assert lines(run.stderr)[0]["error"]["reason"] == "RESUME_LOST"
    (request,) = inside.server.requests
    assert (request.filter.queue, request.resume_token) == ("q", b"0")
    run = inside("task", "watch", "--all", code=4)
    assert f"FAILED     {ID} word_count in default, attempt 3 of 3 ValueError: no words" in run.stdout
    assert run.stderr.startswith("Error: Cannot watch the tasks: too much has happened; list the tasks")


def test_a_watch_of_many_ends_with_its_timeout(inside: Meshq) -> None:
    def endless(context: grpc.ServicerContext) -> Iterator[Any]:
        yield task_service_pb2.WatchTasksResponse(task=make_task(), resume_token=b"1")
        gone.wait(DEADLINE)

    gone = threading.Event()
    inside.server.events = endless
    assert ID in inside("task", "watch", "--all", "--timeout", "0.5").stdout
    gone.set()


# Completing from outside


TOKEN = base64.urlsafe_b64encode(b"\xff\xfelease").decode()


def acknowledged(status: str) -> worker_service_pb2.CompleteTasksResponse:
    number = worker_service_pb2.ResultStatus.Value(f"RESULT_STATUS_{status}")
    return worker_service_pb2.CompleteTasksResponse(acks=[worker_service_pb2.ResultAck(status=number)])


def test_a_task_is_completed_with_a_result(inside: Meshq, tmp_path: Path) -> None:
    inside.server.answers["CompleteTasks"] = lambda _: acknowledged("ACCEPTED")
    picture = tmp_path / "picture"
    picture.write_bytes(b"\x00png")
    assert (
        inside("task", "complete", TOKEN, '{"paid": true}').stdout == "The end of the attempt is recorded.\n"
    )
    inside("task", "complete", TOKEN, "3", "--string")
    inside("task", "complete", TOKEN, "--data-file", str(picture), "--content-type", "image/png")
    run = inside("task", "complete", TOKEN, "--json")
    assert lines(run.stdout) == [{"status": "ACCEPTED"}]
    results = [request.results[0] for request in inside.server.requests]
    assert {result.lease_token for result in results} == {b"\xff\xfelease"}
    json, text, data, nothing = (result.success for result in results)
    assert json.result.struct_value["paid"] is True
    assert text.result.string_value == "3"
    assert (data.data, data.content_type) == (b"\x00png", "image/png")
    assert nothing.WhichOneof("output") is None


def test_a_task_is_completed_with_an_error(inside: Meshq) -> None:
    inside.server.answers["CompleteTasks"] = lambda _: acknowledged("ACCEPTED")
    final = ["--error-type", "REFUSED", "--non-retryable"]
    inside("task", "complete", TOKEN, "--error", "no")
    inside("task", "complete", TOKEN, "--error", "no", *final)
    failures = [request.results[0].failure for request in inside.server.requests]
    assert [(item.error.type, item.error.message, item.non_retryable) for item in failures] == [
        ("Failed", "no", False),
        ("REFUSED", "no", True),
    ]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a b"], "TOKEN: must be base64"),
        ([TOKEN, "1", "--error", "no"], "not both"),
        ([TOKEN, "--non-retryable"], "go with --error"),
        ([TOKEN, "9007199254740993"], "RESULT: must be an integer of at most 2**53"),
    ],
)
def test_what_cannot_complete_a_task_is_told(inside: Meshq, words: list[str], told: str) -> None:
    assert told in inside("task", "complete", *words, code=2).stderr
    assert inside.server.requests == []


def test_an_attempt_that_has_ended_is_not_completed(inside: Meshq) -> None:
    inside.server.answers["CompleteTasks"] = lambda _: acknowledged("LEASE_LOST")
    run = inside("task", "complete", TOKEN, code=5)
    assert run.stderr.startswith("Error: Cannot complete the task: its attempt has ended otherwise; ")
    rule = errors.InvalidRequest.field("results[0].success.data", "must be shorter")
    inside.server.answers["CompleteTasks"] = lambda _: rule
    assert "\n  --data-file: must be shorter\n" in inside("task", "complete", TOKEN, code=2).stderr
