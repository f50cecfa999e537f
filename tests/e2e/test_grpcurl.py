"""grpcurl alone: every server explains itself, and a shell script is a client and a worker."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from meshq.local.system import System

AT_EDGE = {
    "meshq.v1.TaskService",
    "meshq.v1.QueueService",
    "meshq.v1.WorkerService",
    "meshq.v1.RegistryService",
    "meshq.v1.RingService",
}
OWN = {
    "registry": {"meshq.v1.RegistryService"},
    "management-1": {"meshq.v1.TaskService", "meshq.v1.QueueService", "meshq.internal.v1.LedgerService"},
    "execution-1": {"meshq.v1.WorkerService", "meshq.v1.RingService", "meshq.internal.v1.DispatchService"},
}

Grpcurl = Callable[..., str]


@pytest.fixture(scope="module")
def grpcurl(tool: Callable[[str], str], system: System) -> Grpcurl:
    """Calls grpcurl, at the edge unless told otherwise."""
    program = tool("grpcurl")

    def call(
        *words: str, data: Any = None, frames: Sequence[Any] = (), address: str = "", code: int = 0
    ) -> str:
        messages = frames if data is None else [data]
        given = ["-d", "".join(map(json.dumps, messages))] if messages else []
        command = [program, "-plaintext", "-max-time", "30", *given, address or system.edge, *words]
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert run.returncode == code, (run.stdout, run.stderr)
        return run.stdout + run.stderr

    return call


def test_the_edge_lists_and_describes_everything(grpcurl: Grpcurl) -> None:
    assert set(grpcurl("list").split()) >= AT_EDGE
    for service in AT_EDGE:
        assert f"service {service.rpartition('.')[2]}" in grpcurl("describe", service)
    assert "string task_id = 1;" in grpcurl("describe", "meshq.v1.Task").replace("  ", " ")


@pytest.mark.parametrize("name", sorted(OWN))
def test_each_component_lists_and_describes_its_own(grpcurl: Grpcurl, system: System, name: str) -> None:
    address = system.processes[name].address
    listed = set(grpcurl("list", address=address).split())
    assert listed >= OWN[name] | {"grpc.health.v1.Health"}
    for service in sorted(OWN[name]):
        assert "rpc " in grpcurl("describe", service, address=address)
    health = grpcurl("grpc.health.v1.Health/Check", data={}, address=address)
    assert json.loads(health)["status"] == "SERVING"


def test_a_stream_of_frames_brings_the_results_back(grpcurl: Grpcurl) -> None:
    frames = [
        {"tasks": [{"type": "word_count", "payload": text} for text in texts]}
        for texts in (("one two", "one"), ("one two three",))
    ]
    told = grpcurl("meshq.v1.TaskService/RunTasks", frames=frames)
    answers = [answer for answer in parsed(told) if answer]
    stored = [frame["task_ids"] for answer in answers for frame in answer.get("frames", ())]
    assert [len(ids) for ids in stored] == [2, 1]
    back = [result for answer in answers for result in answer.get("results", ())]
    counts = {result.get("index", "0"): result["task"]["result"]["word_count"] for result in back}
    assert counts == {"0": 2, "1": 1, "2": 3}


def parsed(text: str) -> Iterator[Any]:
    """JSON values that stand one behind the other."""
    decoder = json.JSONDecoder()
    while text := text.lstrip():
        value, end = decoder.raw_decode(text)
        yield value
        text = text[end:]


def test_a_shell_script_is_client_and_worker(grpcurl: Grpcurl) -> None:
    task_type = f"shell_job_{uuid.uuid4().hex[:8]}"
    task = {"type": task_type, "payload": {"greeting": "hello"}}
    created = json.loads(grpcurl("meshq.v1.TaskService/CreateTask", data={"task": task}))
    worker = {"worker_id": f"shell-{task_type}"}
    poll = worker | {"task_types": [task_type], "wait_timeout": "20s", "lease_ttl": "30s"}
    (leased,) = json.loads(grpcurl("meshq.v1.WorkerService/PollTasks", data=poll))["assignments"]
    assert leased["task"]["task_id"] == created["task_id"]
    assert leased["task"]["payload"] == {"greeting": "hello"}
    assert leased["attempt"] == 1
    token = leased["lease_token"]
    grpcurl("meshq.v1.WorkerService/HeartbeatTasks", data=worker | {"lease_tokens": [token]})
    result = {"lease_token": token, "success": {"result": {"said": "hello"}}}
    done = json.loads(grpcurl("meshq.v1.WorkerService/CompleteTasks", data=worker | {"results": [result]}))
    assert done["acks"][0]["status"] == "RESULT_STATUS_ACCEPTED"
    again = json.loads(grpcurl("meshq.v1.WorkerService/CompleteTasks", data=worker | {"results": [result]}))
    assert again["acks"][0]["status"] == "RESULT_STATUS_ACCEPTED"
    ended = json.loads(grpcurl("meshq.v1.TaskService/RunTask", data={"task_id": created["task_id"]}))
    assert (ended["state"], ended["result"]) == ("TASK_STATE_SUCCEEDED", {"said": "hello"})
    assert ended["worker_id"] == worker["worker_id"]


def test_a_shell_script_may_give_up_a_task(grpcurl: Grpcurl) -> None:
    task_type = f"shell_job_{uuid.uuid4().hex[:8]}"
    task = {"type": task_type, "max_attempts": 1}
    created = json.loads(grpcurl("meshq.v1.TaskService/CreateTask", data={"task": task}))
    poll = {"worker_id": "shell-2", "task_types": [task_type]}
    (leased,) = json.loads(grpcurl("meshq.v1.WorkerService/PollTasks", data=poll))["assignments"]
    failure = {"lease_token": leased["lease_token"], "failure": {"error": {"type": "Tired", "message": "no"}}}
    grpcurl("meshq.v1.WorkerService/CompleteTasks", data={"worker_id": "shell-2", "results": [failure]})
    ended = json.loads(grpcurl("meshq.v1.TaskService/RunTask", data={"task_id": created["task_id"]}))
    assert (ended["state"], ended["error"]["type"]) == ("TASK_STATE_FAILED", "Tired")


def poll_for(grpcurl: Grpcurl, task_type: str) -> Any:
    """The next task of a type, leased by a shell script."""
    poll = {"worker_id": f"shell-{task_type}", "task_types": [task_type], "wait_timeout": "20s"}
    (leased,) = json.loads(grpcurl("meshq.v1.WorkerService/PollTasks", data=poll))["assignments"]
    return leased


def complete(grpcurl: Grpcurl, lease: Any, **outcome: Any) -> None:
    """Report how a task ended."""
    result = {"lease_token": lease["lease_token"]} | outcome
    data = {"worker_id": "shell", "results": [result]}
    done = json.loads(grpcurl("meshq.v1.WorkerService/CompleteTasks", data=data))
    assert done["acks"][0]["status"] == "RESULT_STATUS_ACCEPTED"


def test_a_shell_script_snoozes_checkpoints_and_leaves_the_end_to_another(grpcurl: Grpcurl) -> None:
    """All that a session can say about a task can be said in single calls."""
    task_type = f"shell_job_{uuid.uuid4().hex[:8]}"
    task = {"type": task_type, "retry_policy": {"initial_delay": "0.05s"}}
    created = json.loads(grpcurl("meshq.v1.TaskService/CreateTask", data={"task": task}))
    complete(grpcurl, poll_for(grpcurl, task_type), snooze={"delay": "0.1s", "reason": "not yet"})
    second = poll_for(grpcurl, task_type)
    news = {"lease_token": second["lease_token"], "fraction": 0.5, "checkpoint": {"page": 3}}
    grpcurl("meshq.v1.WorkerService/HeartbeatTasks", data={"worker_id": "shell", "progress": [news]})
    complete(grpcurl, second, failure={"error": {"type": "Torn", "message": "page 4"}})
    third = poll_for(grpcurl, task_type)
    assert (third["attempt"], third["checkpoint"]) == (3, {"page": 3})
    complete(grpcurl, third, finish_later={"timeout": "60s"})
    complete(grpcurl, third, success={"result": "by whoever has the token"})
    ended = json.loads(grpcurl("meshq.v1.TaskService/RunTask", data={"task_id": created["task_id"]}))
    assert (ended["state"], ended["result"]) == ("TASK_STATE_SUCCEEDED", "by whoever has the token")
    told = grpcurl("meshq.v1.TaskService/ListAttempts", data={"task_id": created["task_id"]})
    outcomes = [item["outcome"].removeprefix("ATTEMPT_OUTCOME_") for item in json.loads(told)["attempts"]]
    assert outcomes == ["SNOOZED", "FAILED", "SUCCEEDED"]


def test_watching_streams(grpcurl: Grpcurl) -> None:
    task = {"type": "word_count", "payload": "a b c"}
    created = json.loads(grpcurl("meshq.v1.TaskService/CreateTask", data={"task": task}))
    told = grpcurl("meshq.v1.TaskService/WatchTask", data={"task_id": created["task_id"]})
    assert '"word_count": 3' in told


def test_an_error_shows_its_details(grpcurl: Grpcurl) -> None:
    told = grpcurl("meshq.v1.TaskService/GetTask", data={"task_id": "nonsense"}, code=67)  # 64 + code
    assert "InvalidArgument" in told
    assert "INVALID_FIELD" in told
    assert "task_id" in told
