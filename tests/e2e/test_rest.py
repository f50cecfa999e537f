"""The REST interface, as the README shows it with curl."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


@pytest.fixture
def done(rest: Any, eventually: Any) -> Any:
    """Waits for the end of a task, as a loop around curl would."""

    def wait(task_id: str) -> Any:
        ended = ("SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED")
        return eventually(
            lambda: rest("GET", f"/v1/tasks/{task_id}").json,
            lambda task: task["state"].removeprefix("TASK_STATE_") in ended,
        )

    return wait


def create(rest: Any, **task: Any) -> Any:
    answer = rest("POST", "/v1/tasks", {"type": "word_count", "payload": "word1 word2 word3"} | task)
    assert answer.status == 200, answer.text
    return answer.json


def test_a_task_is_created_and_read_with_its_result(rest: Any, done: Any) -> None:
    created = create(rest)
    assert ID.fullmatch(created["task_id"])
    assert created["state"] in {"TASK_STATE_PENDING", "TASK_STATE_SCHEDULED"}
    assert created["queue"] == "default"
    task = done(created["task_id"])
    assert task["state"] == "TASK_STATE_SUCCEEDED"
    assert task["result"] == {"word_count": 3}
    assert task["create_time"] <= task["attempt_start_time"] <= task["end_time"]
    assert task["payload"] == "word1 word2 word3"
    assert task["worker_id"]


def test_curl_sends_json_as_a_form(rest: Any) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = rest("POST", "/v1/tasks", '{"type":"word_count","payload":"a b"}', headers)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"


def test_the_list_pages(rest: Any) -> None:
    ids = [create(rest, queue="rest-list")["task_id"] for _ in range(5)]  # nobody serves this queue
    seen: list[str] = []
    token = ""
    while True:
        page = rest("GET", f"/v1/tasks?queue=rest-list&page_size=2&page_token={token}").json
        assert len(page["tasks"]) <= 2
        seen += [task["task_id"] for task in page["tasks"]]
        token = page["next_page_token"]
        if not token:
            break
    assert seen == sorted(ids, reverse=True)
    page = rest("GET", "/v1/tasks?page_size=10").json
    assert 5 <= len(page["tasks"]) <= 10
    only = rest("GET", "/v1/tasks?queue=rest-list&states=TASK_STATE_FAILED").json
    assert only["tasks"] == []


def test_a_task_is_deleted(rest: Any, done: Any) -> None:
    task_id = create(rest)["task_id"]
    done(task_id)
    answer = rest("DELETE", f"/v1/tasks/{task_id}")
    assert (answer.status, answer.json["task_id"]) == (200, task_id)
    answer = rest("GET", f"/v1/tasks/{task_id}")
    assert (answer.status, answer.reason) == (404, "TASK_NOT_FOUND")


def test_an_open_task_is_not_deleted_unless_forced(rest: Any) -> None:
    task_id = create(rest, type="nobody_serves_this", queue="rest-open")["task_id"]
    answer = rest("DELETE", f"/v1/tasks/{task_id}")
    assert (answer.status, answer.reason) == (400, "TASK_NOT_ENDED")
    assert rest("DELETE", f"/v1/tasks/{task_id}?force=true").status == 200
    assert rest("GET", f"/v1/tasks/{task_id}").status == 404


def test_a_task_is_cancelled(rest: Any, done: Any) -> None:
    task_id = create(rest, type="nobody_serves_this", queue="rest-open")["task_id"]
    answer = rest("POST", f"/v1/tasks/{task_id}:cancel", {"reason": "enough"})
    assert answer.json["state"] in {"TASK_STATE_CANCELLED", "TASK_STATE_CANCELLING"}
    task = done(task_id)
    assert (task["state"], task["cancel_reason"]) == ("TASK_STATE_CANCELLED", "enough")


def test_run_waits_for_the_result(rest: Any) -> None:
    task = rest("POST", "/v1/tasks:run", {"type": "word_count", "payload": "to be or not to be"}).json
    assert (task["state"], task["result"]) == ("TASK_STATE_SUCCEEDED", {"word_count": 6})
    again = rest("POST", f"/v1/tasks/{task['task_id']}:run", {}).json
    assert again["result"] == {"word_count": 6}


def test_run_gives_back_what_it_has_when_its_time_is_over(rest: Any) -> None:
    body = {"type": "sleep", "payload": 2}
    task = rest("POST", "/v1/tasks:run?wait_timeout=0.2s", body).json
    assert task["state"] in {"TASK_STATE_PENDING", "TASK_STATE_RUNNING"}
    assert rest("POST", f"/v1/tasks/{task['task_id']}:run", {}).json["state"] == "TASK_STATE_SUCCEEDED"


def test_watch_is_live_and_one_json_object_a_line(rest: Any) -> None:
    task_id = create(rest, type="simulate_backup", payload={"steps": 4, "seconds": 2})["task_id"]
    events = []
    with rest.open("GET", f"/v1/tasks/{task_id}:watch") as stream:
        assert stream.status == 200
        assert stream.getheader("content-type") == "application/json"
        while line := stream.readline():
            events.append(json.loads(line))
            if len(events) == 1:
                # It comes at once, while the task still runs.
                state = rest("GET", f"/v1/tasks/{task_id}?view=TASK_VIEW_BASIC").json["state"]
                assert state in {"TASK_STATE_PENDING", "TASK_STATE_RUNNING"}
    states = [event["task"]["state"] for event in events if "task" in event]
    assert states[-1] == "TASK_STATE_SUCCEEDED"
    assert len(states) == len(set(states))
    progress = [event["progress"]["fraction"] for event in events if "progress" in event]
    assert progress == sorted(progress)
    assert progress, "progress is reported while it runs"
    assert events[-1]["task"]["result"]


def test_a_watch_of_an_ended_task_ends_at_once(rest: Any, done: Any) -> None:
    task_id = create(rest)["task_id"]
    done(task_id)
    lines = rest("GET", f"/v1/tasks/{task_id}:watch").text.splitlines()
    assert json.loads(lines[-1])["task"]["result"] == {"word_count": 3}


def test_batches(rest: Any) -> None:
    tasks = [{"type": "word_count", "payload": "a"}, {"queue": "no type"}]
    results = rest("POST", "/v1/tasks:batchCreate", {"tasks": tasks}).json["results"]
    assert ID.fullmatch(results[0]["task_id"])
    assert results[1]["error"]["code"] == 3
    missing = "00000000-0000-7000-8000-000000000000"
    found = rest("POST", "/v1/tasks:batchGet", {"task_ids": [results[0]["task_id"], missing]}).json
    assert [task["task_id"] for task in found["tasks"]] == [results[0]["task_id"]]
    assert found["missing_task_ids"] == [missing]


def test_a_request_id_makes_one_task(rest: Any) -> None:
    body = {"type": "word_count", "payload": "a"}
    first = rest("POST", "/v1/tasks?request_id=rest-1", body).json
    assert rest("POST", "/v1/tasks?request_id=rest-1", body).json["task_id"] == first["task_id"]
    other = rest("POST", "/v1/tasks?request_id=rest-1", {"type": "word_count", "payload": "b"})
    assert (other.status, other.reason) == (409, "REQUEST_ID_REUSED")


def test_workers_and_queues(rest: Any, done: Any) -> None:
    done(create(rest, queue="default")["task_id"])
    (worker,) = [
        item for item in rest("GET", "/v1/workers").json["workers"] if "word_count" in item["task_types"]
    ]
    assert worker["mode"] == "WORKER_MODE_SESSION"
    assert rest("GET", f"/v1/workers/{worker['worker_id']}").json["worker_id"] == worker["worker_id"]
    queues = {item["queue"]: item for item in rest("GET", "/v1/queues").json["queues"]}
    assert "default" in queues
    queue = rest("GET", "/v1/queues/default").json
    assert int(queue["counts"]["succeeded"]) >= 1
    answer = rest("GET", "/v1/queues/never-used")
    assert (answer.status, answer.reason) == (404, "QUEUE_NOT_FOUND")


def test_the_mesh_shows_itself(rest: Any) -> None:
    services = {item["service"]: item for item in rest("GET", "/v1/services").json["services"]}
    assert services["meshq.v1.TaskService"]["component"] == "meshq.management"
    assert services["meshq.v1.WorkerService"]["instances"] == 2
    components = {item["component"] for item in rest("GET", "/v1/instances").json["instances"]}
    assert {"meshq.registry", "meshq.management", "meshq.execution"} <= components
    shards = rest("GET", "/v1/shards").json["shards"]
    assert len(shards) == 3
    assert sum(shard["share"] for shard in shards) == pytest.approx(1)


def test_health_metrics_and_the_page(rest: Any) -> None:
    assert rest("GET", "/healthz").status == 200
    metrics = rest("GET", "/metrics")
    assert metrics.status == 200
    assert re.search(r"^# TYPE \w+ (counter|gauge|histogram)", metrics.text, re.MULTILINE)
    page = rest("GET", "/")
    assert page.status == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "meshq" in page.text
