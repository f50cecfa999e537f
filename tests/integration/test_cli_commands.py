"""The installed `meshq` against a gRPC server whose answers are in the test's hands."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from fixtures.command_line import (
    DEADLINE,
    FAILED,
    ID,
    MESHQ,
    SUCCEEDED,
    Inside,
    Meshq,
    Terminal,
    inside,
    lines,
    make_task,
    meshq,
)

from meshq.contract import errors
from meshq.v1 import (
    ring_service_pb2,
    task_pb2,
    task_service_pb2,
)

__all__ = ["inside", "meshq"]


# Creating and running


def test_create_prints_the_id_and_sends_all_fields(meshq: Meshq) -> None:
    meshq.server.answer = lambda _: make_task()
    run = meshq(
        *("task", "create", "word_count", '{"text": "a b"}', "--queue", "q", "--max-attempts", "5"),
        *("-H", "a=b", "-H", "c=d", "--request-id", "r-1"),
    )
    assert run.stdout == ID + "\n"
    (request,) = meshq.server.requests
    assert request.request_id == "r-1"
    task = request.task
    assert (task.type, task.queue, task.max_attempts) == ("word_count", "q", 5)
    assert task.payload.struct_value["text"] == "a b"
    assert dict(task.headers) == {"a": "b", "c": "d"}


@pytest.mark.parametrize(
    ("arguments", "stdin", "kind", "value"),
    [
        (["three"], b"", "string_value", "three"),
        (["3"], b"", "number_value", 3),
        (["3", "--string"], b"", "string_value", "3"),
        (["null"], b"", "null_value", 0),
        (["-"], b"from stdin", "string_value", "from stdin"),
        (["--file", "-"], b"[1]", "list_value", None),
        ([], b"", None, None),
    ],
)
def test_inputs(meshq: Meshq, arguments: list[str], stdin: bytes, kind: str | None, value: object) -> None:
    meshq("task", "create", "t", *arguments, stdin=stdin)
    task = meshq.server.requests[0].task
    assert task.HasField("payload") is (kind is not None)
    if kind:
        assert task.payload.WhichOneof("kind") == kind
    if value is not None and kind:
        assert getattr(task.payload, kind) == value


def test_data_from_a_file(meshq: Meshq, tmp_path: Path) -> None:
    (tmp_path / "in.bin").write_bytes(b"\x00\xff")
    meshq("task", "create", "t", "--data-file", str(tmp_path / "in.bin"), "--content-type", "x/y")
    task = meshq.server.requests[0].task
    assert (task.data, task.content_type) == (b"\x00\xff", "x/y")


def test_run_prints_the_result(meshq: Meshq) -> None:
    assert meshq("task", "run", "word_count", "word1 word2 word3").stdout == '{"word_count": 3}\n'
    (shape,) = lines(meshq("--json", "task", "run", "word_count", "word1").stdout)
    assert (shape["state"], shape["result"]) == ("SUCCEEDED", {"word_count": 3})


def test_run_waits_for_an_existing_task(meshq: Meshq) -> None:
    answers = iter([make_task(state="TASK_STATE_RUNNING"), SUCCEEDED])
    meshq.server.answer = lambda _: next(answers)
    assert meshq("task", "run", ID).stdout == '{"word_count": 3}\n'
    assert [request.task_id for request in meshq.server.requests] == [ID, ID]


def test_results_as_bytes_come_out_as_they_are(meshq: Meshq) -> None:
    answer = make_task(state="TASK_STATE_SUCCEEDED", result_data="AP8=")
    meshq.server.answer = lambda _: answer
    assert meshq("task", "run", ID, stdin=b" ").stdout == "\x00\xff"


@pytest.mark.parametrize("command", [("run", ID), ("create", "word_count", "--wait"), ("watch", ID)])
def test_a_failed_task_is_told_on_stderr_with_code_1(meshq: Meshq, command: tuple[str, ...]) -> None:
    meshq.server.answer = lambda _: FAILED
    meshq.server.events = lambda _: iter([FAILED])
    run = meshq("task", *command, code=1)
    assert run.stderr == (
        f"Error: Task {ID} (word_count) FAILED at attempt 3 of 3: ValueError: no words; "
        f"`meshq task get {ID}` shows it all.\n"
    )
    run = meshq("task", *command, "--json", code=1)
    assert run.stderr == ""
    last = lines(run.stdout)[-1]
    assert last.get("task", last)["error"]["type"] == "ValueError"


def test_a_wait_that_takes_too_long(meshq: Meshq) -> None:
    meshq.server.answer = lambda _: make_task(state="TASK_STATE_RUNNING")
    run = meshq("task", "run", ID, "--timeout", "0.2", code=4)
    assert f"still RUNNING; the task goes on; `meshq task watch {ID}` follows it." in run.stderr


# Reading


def test_get_shows_everything(meshq: Meshq) -> None:
    run = meshq("task", "get", ID)
    for part in (ID, "SUCCEEDED", "word1 word2 word3", '{"word_count": 3}', "w-1", "1.5 s"):
        assert part in run.stdout
    (shape,) = lines(meshq("task", "get", ID, "--json").stdout)
    assert shape["attempt_start_time"] == "2026-01-31T12:00:01Z"


def test_a_trace_is_shown_to_whoever_gets_the_task(meshq: Meshq) -> None:
    meshq.server.answer = lambda _: FAILED
    assert "Trace of the handler" in meshq("task", "get", ID).stdout


def pages(request: Any) -> Any:
    page = int(request.page_token or 0)
    tasks = [make_task(task_id=f"0199aaaa-0000-7000-8000-{page * 1000 + i:012d}") for i in range(2)]
    token = str(page + 1) if page < 2 else ""
    return task_service_pb2.ListTasksResponse(tasks=tasks, next_page_token=token)


def test_lists_filter_and_page(meshq: Meshq) -> None:
    meshq.server.answer = pages
    run = meshq(
        *("task", "list", "--state", "failed", "-s", "RUNNING", "--type", "t", "--queue", "q", "--json"),
        *("--since", "2026-01-01T00:00:00Z", "--until", "1h", "--limit", "3"),
    )
    assert len(lines(run.stdout)) == 3
    request = meshq.server.requests[0]
    assert list(request.states) == [task_pb2.TASK_STATE_FAILED, task_pb2.TASK_STATE_RUNNING]
    assert (request.type, request.queue) == ("t", "q")
    assert request.min_create_time.ToJsonString() == "2026-01-01T00:00:00Z"
    assert request.HasField("max_create_time")
    assert len(lines(meshq("task", "list", "--all", "--json").stdout)) == 6


def test_people_are_told_that_there_is_more(meshq: Meshq) -> None:
    meshq.server.answer = pages
    run = meshq("task", "list", "-n", "2")
    assert len(run.stdout.splitlines()) == 3
    assert "There are more than 2" in run.stderr
    assert meshq("task", "list", "-n", "6").stderr == ""


def test_an_empty_list_is_told_on_stderr(meshq: Meshq) -> None:
    meshq.server.answer = lambda _: task_service_pb2.ListTasksResponse()
    run = meshq("task", "list")
    assert (run.stdout, run.stderr) == ("", "There are no such tasks.\n")


def test_a_closed_pipe_is_no_error(meshq: Meshq) -> None:
    meshq.server.answer = lambda _: task_service_pb2.ListTasksResponse(
        tasks=[make_task()] * 1_000, next_page_token="more"
    )
    command = f"'{MESHQ}' task list --all --json | head -1"
    run = subprocess.run(
        ["bash", "-c", command],
        env=meshq.environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=True,
    )
    assert len(lines(run.stdout)) == 1
    assert run.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "part", "keys"),
    [
        ("queue list", "q-2", {"queue": "q-1"}),
        ("queue get q-1", "q-1", {"queue": "q-1", "complete": True}),
        ("worker list", "w-1", {"worker_id": "w-1", "mode": "SESSION", "slots": 4}),
        ("worker get w-1", "word_count", {"task_types": ["word_count"]}),
        ("service list", "meshq.management", {"service": "meshq.v1.TaskService", "instances": 2}),
        ("instance list", "meshq.execution", {"instance_id": "e-1", "address": "127.0.0.1:7"}),
        ("instance list --component meshq.gateway", "meshq.gateway", {"component": "meshq.gateway"}),
        ("ring list", "100.0%", {"shard": "s-1", "ring_version": 7, "state": "ACTIVE"}),
        ("shard list", "100.0%", {"shard": "s-1", "ring_version": 7, "state": "ACTIVE"}),
        ("version", "meshq 0", {}),
    ],
)
def test_what_there_is(meshq: Meshq, arguments: str, part: str, keys: dict[str, Any]) -> None:
    assert part in meshq(*arguments.split()).stdout
    shape = lines(meshq(*arguments.split(), "--json").stdout)[0]
    assert {key: shape[key] for key in keys} == keys


def test_the_ring_is_changed(inside: Inside) -> None:
    held = [5, 0]
    shard = ring_service_pb2.Shard(shard="s-1", share=0.25)

    def drained(_: Any) -> Any:
        state = ring_service_pb2.SHARD_STATE_DRAINING
        found = ring_service_pb2.Shard(shard="s-1", state=state, ready=held.pop(0))
        return ring_service_pb2.ListShardsResponse(ring_version=8, shards=[found])

    inside.server.answer = lambda _: shard
    inside.server.answers["ListShards"] = drained
    assert "25.0%" in inside("ring", "add", "s-1", "h:1", "--weight", "2").stdout
    assert "25.0%" in inside("ring", "set", "s-1", "--weight", "3").stdout
    assert "drained and empty" in inside("ring", "drain", "s-1", "--wait").stdout
    assert "takes 25.0%" in inside("ring", "activate", "s-1").stdout
    assert lines(inside("ring", "remove", "s-1", "--force", "--json").stdout)[0]["shard"] == "s-1"
    added, changed, *_, removed = inside.server.requests
    assert (added.shard.address, added.shard.weight) == ("h:1", 2)
    assert list(changed.update_mask.paths) == ["weight"]
    assert removed.force
    assert "say what to set" in inside("ring", "set", "s-1", code=2).stderr
    inside.server.answer = lambda _: errors.PreconditionFailed(
        "Shard s-1 takes tasks; drain it first.", errors.Reason.SHARD_NOT_EMPTY
    )
    assert "ring drain --wait" in inside("ring", "remove", "s-1", code=5).stderr


def test_a_shard_that_is_not_empty_in_time(inside: Inside) -> None:
    state = ring_service_pb2.SHARD_STATE_DRAINING
    shard = ring_service_pb2.Shard(shard="s-1", state=state, leased=1, tasks_to_move=2)
    inside.server.answer = lambda _: shard
    inside.server.answers["ListShards"] = lambda _: ring_service_pb2.ListShardsResponse(shards=[shard])
    assert "2 tasks are still to be moved, 1 are at workers" in inside("ring", "drain", "s-1").stdout
    assert "not empty in time" in inside("ring", "drain", "s-1", "--wait", "--timeout", "0.1", code=4).stderr
    inside.server.answers["ListShards"] = lambda _: ring_service_pb2.ListShardsResponse()
    assert "not draining any more" in inside("ring", "drain", "s-1", "--wait", code=5).stderr


# Ending


def test_cancel_and_delete(meshq: Meshq) -> None:
    meshq.server.answer = lambda _: make_task(state="TASK_STATE_CANCELLING")
    assert meshq("task", "cancel", ID, "--reason", "late").stdout == f"Task {ID} is CANCELLING.\n"
    assert meshq.server.requests[-1].reason == "late"
    assert meshq("task", "delete", ID, "--force").stdout == f"Task {ID} is deleted.\n"
    assert meshq.server.requests[-1].force
    assert lines(meshq("task", "delete", ID, "--json").stdout)[0]["task_id"] == ID


# Errors


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (
            errors.NotFound(f"there is no task {ID}"),
            3,
            f"Cannot get task {ID}: there is no task {ID}; `meshq task",
        ),
        (errors.PreconditionFailed("it is RUNNING"), 5, "it is RUNNING; cancel it first"),
        (errors.InvalidRequest.field("task_id", "must be a UUID"), 2, "\n  ID: must be a UUID\n"),
        (errors.InternalError("a fault"), 70, "a fault; the server's log says more."),
    ],
)
def test_errors(meshq: Meshq, error: errors.MeshqError, code: int, says: str) -> None:
    meshq.server.answer = lambda _: error
    run = meshq("task", "get", ID, code=code)
    assert run.stdout == ""
    assert says in run.stderr
    (shape,) = lines(meshq("task", "get", ID, "--json", code=code).stderr)
    assert shape["error"]["exit_code"] == code
    assert shape["error"]["reason"] == error.reason


@pytest.mark.parametrize("command", [["task", "get", ID], ["bench"]], ids=["get", "bench"])
def test_nobody_answers(meshq: Meshq, command: list[str]) -> None:
    run = meshq(*command, "--target", "127.0.0.1:1", "--timeout", "0.3", code=4)
    assert "no gRPC server answers at 127.0.0.1:1 (connection refused); check the address" in run.stderr


# Watching


def story(_: grpc.ServicerContext) -> Iterator[Any]:
    yield make_task()
    yield make_task(state="TASK_STATE_RUNNING", worker_id="w-1")
    yield task_pb2.TaskProgress(attempt=1, fraction=0.5, message="half way")
    yield task_pb2.Keepalive()
    yield task_pb2.TaskOutput(attempt=1, stream="log", chunk=b"a line of output\n")
    yield SUCCEEDED


def test_watch_as_json_is_one_event_a_line(meshq: Meshq) -> None:
    meshq.server.events = story
    events = lines(meshq("task", "watch", ID, "--json").stdout)
    assert [event["event"] for event in events] == ["task", "task", "progress", "output", "task"]
    assert events[2]["progress"]["message"] == "half way"
    assert events[3]["output"]["text"] == "a line of output\n"
    assert events[4]["task"]["result"] == {"word_count": 3}


def test_watch_in_a_pipe_is_one_line_an_event(meshq: Meshq) -> None:
    meshq.server.events = story
    assert meshq("task", "watch", ID).stdout.splitlines() == [
        "PENDING, attempt 1 of 3",
        "RUNNING, attempt 1 of 3, at w-1",
        "50% half way",
        "a line of output",
        "SUCCEEDED, attempt 1 of 3, at w-1",
        '{"word_count": 3}',
    ]


def until_gone(context: grpc.ServicerContext) -> Iterator[Any]:
    """A task that runs for as long as somebody watches."""
    yield make_task(state="TASK_STATE_RUNNING")
    while context.is_active():
        time.sleep(0.02)


def test_events_are_written_as_they_happen_and_ctrl_c_is_quiet(meshq: Meshq) -> None:
    meshq.server.events = until_gone
    process = meshq.start("task", "watch", ID, "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["task"]["state"] == "RUNNING"
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 130
        assert process.stdout.read() == b""
        assert process.stderr.read() == b""


def test_watch_ends_with_its_timeout(meshq: Meshq) -> None:
    meshq.server.events = until_gone
    run = meshq("task", "watch", ID, "--timeout", "0.5", code=4)
    assert "it has not ended after 0.5 s" in run.stderr


def test_a_broken_watch_goes_on(meshq: Meshq) -> None:
    streams: Iterator[list[Any]] = iter([[make_task(), errors.Unavailable("gone")], [make_task(), SUCCEEDED]])
    meshq.server.events = lambda _: iter(next(streams))
    states = [event["task"]["state"] for event in lines(meshq("task", "watch", ID, "--json").stdout)]
    assert states == ["PENDING", "SUCCEEDED"]


def test_watch_on_a_terminal_is_live(meshq: Meshq) -> None:
    steps = iter(range(10))

    def events(context: grpc.ServicerContext) -> Iterator[Any]:
        yield make_task(state="TASK_STATE_RUNNING", worker_id="w-1")
        yield task_pb2.TaskProgress(attempt=1, fraction=0.5, message="half way")
        yield task_pb2.TaskOutput(attempt=1, stream="log", chunk=b"evil \x1b]0;title\x07 line\n")
        while next(steps, None) is not None and context.is_active():
            time.sleep(0.05)
        yield SUCCEEDED

    meshq.server.events = events
    with Terminal(meshq, "task", "watch", ID) as terminal:
        text = terminal.read_until(r'\{"word_count": 3\}')
        assert terminal.process.wait(DEADLINE) == 0
        terminal.read_all()
    for part in ("RUNNING", "half way", "50%", r"evil \x1b]0;title\x07 line"):
        assert part in text
    assert b"\x1b[?25l" in terminal.screen, "the cursor is hidden while the view is live"
    assert terminal.screen.rindex(b"\x1b[?25h") > terminal.screen.rindex(b"\x1b[?25l"), "and shown at the end"
    assert b"\x1b]0;" not in terminal.screen


def test_ctrl_c_leaves_the_terminal_as_it_was(meshq: Meshq) -> None:
    meshq.server.events = until_gone
    with Terminal(meshq, "task", "watch", ID) as terminal:
        terminal.read_until("RUNNING")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(DEADLINE) == 130
        text = terminal.read_all()
    assert "Traceback" not in text
    assert "Error" not in text
    assert terminal.screen.rindex(b"\x1b[?25h") > terminal.screen.rindex(b"\x1b[?25l")


def test_no_color_is_plain(meshq: Meshq) -> None:
    for arguments, colored in ((["task", "get", ID], True), (["--no-color", "task", "get", ID], False)):
        with Terminal(meshq, *arguments) as terminal:
            terminal.read_until("SUCCEEDED")
            assert terminal.process.wait(DEADLINE) == 0
            terminal.read_all()
        assert (b"\x1b[32m" in terminal.screen) is colored


def test_a_queue_that_is_not_there(meshq: Meshq) -> None:
    run = meshq("queue", "get", "q-9", code=3)
    assert run.stderr == (
        "Error: Cannot get queue q-9: there is no queue q-9; `meshq queue list` shows the queues there are.\n"
    )
