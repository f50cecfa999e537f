"""REST at the edge: JSON in and out, streams, errors and limits, through a real Envoy."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from fixtures.edge import ID, Stand, reason, stand

from meshq.contract.errors import (
    DeadlineExceeded,
    Reason,
    Unavailable,
)
from meshq.contract.limits import MAX_MESSAGE_BYTES
from meshq.contract.status import from_rpc_error
from meshq.v1 import (
    task_service_pb2,
    worker_service_pb2,
    worker_service_pb2_grpc,
)

__all__ = ["stand"]

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_curl_with_its_default_content_type(stand: Stand) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    text = '{"type":"word_count","payload":"word1 word2 word3"}'
    status, task = await stand.rest("POST", "/v1/tasks", data=text, headers=form)
    assert status == 200
    assert (task["task_id"], task["state"], task["payload"]) == (
        ID,
        "TASK_STATE_PENDING",
        "word1 word2 word3",
    )


async def test_json_in_and_out(stand: Stand) -> None:
    payload = {"words": ["a", 1, 2.5, None, True], "nested": {"x": {}}}
    status, task = await stand.rest("POST", "/v1/tasks", json={"type": "t", "payload": payload})
    assert (status, task["payload"]) == (200, payload)
    assert task["headers"]["request_id"] == ""
    # Zeros and empty lists are shown.
    assert (task["attempt"], task["worker_id"]) == (0, "")


async def test_bytes_are_base64(stand: Stand) -> None:
    data = base64.b64encode(b"\x00\xff").decode()
    status, task = await stand.rest("POST", "/v1/tasks", json={"type": "t", "data": data})
    assert (status, task["data"]) == (200, data)


async def test_query_parameters_are_fields(stand: Stand) -> None:
    _, task = await stand.rest("POST", "/v1/tasks?request_id=r-1", json={"type": "t"})
    assert task["headers"]["request_id"] == "r-1"
    query = "page_size=7&type=x&states=TASK_STATE_PENDING&states=TASK_STATE_FAILED"
    query += "&min_create_time=2026-01-02T03:04:05Z"
    _, page = await stand.rest("GET", f"/v1/tasks?{query}")
    assert page["tasks"][0]["headers"] == {"page_size": "7", "states": "3,8", "since": "2026-01-02T03:04:05Z"}
    assert page["next_page_token"] == ""
    _, task = await stand.rest("GET", f"/v1/tasks/{ID}?view=TASK_VIEW_FULL")
    assert (task["task_id"], task["result"]) == (ID, 1.5)


async def test_a_custom_verb(stand: Stand) -> None:
    status, task = await stand.rest("POST", "/v1/tasks:run?wait_timeout=0.2s", json={"type": "t"})
    assert (status, task["state"]) == (200, "TASK_STATE_SUCCEEDED")


async def test_a_body_may_be_left_out(stand: Stand) -> None:
    status, task = await stand.rest("POST", f"/v1/tasks/{ID}:cancel")
    assert (status, task["task_id"], task["cancel_reason"]) == (200, ID, "")


async def test_numbers_of_a_payload_are_doubles(stand: Stand) -> None:
    text = '{"type": "t", "payload": [9007199254740993, 0.1, null]}'
    _, task = await stand.rest("POST", "/v1/tasks", data=text)
    assert task["payload"] == [9007199254740992, 0.1, None]


async def test_names_may_be_those_of_javascript(stand: Stand) -> None:
    _, task = await stand.rest("POST", "/v1/tasks", json={"type": "t", "maxAttempts": 7})
    assert task["max_attempts"] == 7


async def test_unknown_body_fields_are_dropped(stand: Stand) -> None:
    status, task = await stand.rest("POST", "/v1/tasks", json={"type": "t", "nonsense": 1})
    assert (status, task["type"]) == (200, "t")


async def test_a_stream_is_a_line_of_json_for_each_event_as_it_happens(stand: Stand) -> None:
    arrivals, lines = [], []
    async with stand.http.get(f"http://{stand.edge}/v1/tasks/{ID}:watch") as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        async for line in answer.content:
            arrivals.append(time.monotonic())
            lines.append(json.loads(line))
    assert [next(iter(line)) for line in lines] == ["progress", "progress", "output", "task"]
    assert lines[0]["progress"]["message"] == "ö"
    assert lines[2]["output"] == {"attempt": 1, "offset": str(1 << 40), "stream": "", "chunk": "AP8="}
    assert lines[3]["task"]["state"] == "TASK_STATE_SUCCEEDED"
    assert arrivals[1] - arrivals[0] > 0.2


async def test_a_stream_that_fails_at_once_is_an_error(stand: Stand) -> None:
    status, body = await stand.rest("GET", "/v1/tasks/none:watch")
    assert (status, reason(body)) == (404, "TASK_NOT_FOUND")


async def test_errors_have_their_details(stand: Stand) -> None:
    status, body = await stand.rest("POST", "/v1/tasks", json={})
    assert (status, body["code"], reason(body)) == (400, 3, "INVALID_FIELD")
    violation = body["details"][1]["field_violations"][0]
    assert (violation["field"], violation["description"]) == ("task.type", "must be set")
    status, body = await stand.rest("GET", "/v1/tasks/none")
    assert (status, body["code"], reason(body)) == (404, 5, "TASK_NOT_FOUND")
    assert body["details"][0]["metadata"] == {"task_id": "none"}


@pytest.mark.parametrize(
    "text", ["{bad", "[]x", '{"type": 5}', '{"max_attempts": "many", "type": "t"}', "word"]
)
async def test_what_is_no_json_of_the_method_is_refused(stand: Stand, text: str) -> None:
    status, body = await stand.rest("POST", "/v1/tasks", data=text)
    assert (status, body["code"], reason(body)) == (400, 3, "INVALID_FIELD")
    assert [violation["field"] for violation in body["details"][1]["field_violations"]] == ["body"]
    assert body["message"]


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/v1/tasks:batchCreate", (429, 8, "BACKLOG_FULL")),
        ("POST", "/v1/tasks:batchGet", (500, 13, "INTERNAL")),
        ("DELETE", f"/v1/tasks/{ID}", (400, 9, "TASK_NOT_ENDED")),
    ],
)
async def test_codes_become_statuses(
    stand: Stand, method: str, path: str, expected: tuple[int, int, str]
) -> None:
    status, body = await stand.rest(method, path, json={} if method == "POST" else None)
    assert (status, body["code"], reason(body)) == expected
    assert ("2.500s" in str(body)) == (expected[0] == 429)


async def test_path_and_body_make_one_request(stand: Stand) -> None:
    status, task = await stand.rest("POST", f"/v1/tasks/{ID}:cancel", json={"reason": "enough"})
    assert (status, task["task_id"], task["cancel_reason"]) == (200, ID, "enough")


async def test_unknown_query_parameters_are_refused(stand: Stand) -> None:
    status, body = await stand.rest("POST", "/v1/tasks?nonsense=1", json={"type": "t"})
    assert (status, reason(body)) == (400, "INVALID_FIELD")
    violation = body["details"][1]["field_violations"][0]
    assert violation["field"] == "query"
    assert "nonsense" in violation["description"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/nothing"), ("PATCH", "/v1/tasks"), ("GET", "/v2/tasks"), ("DELETE", "/x")],
)
async def test_unknown_paths(stand: Stand, method: str, path: str) -> None:
    status, body = await stand.rest(method, path)
    assert (status, body["code"], reason(body)) == (404, 12, "METHOD_UNKNOWN")


async def test_a_service_that_nobody_serves_now(stand: Stand) -> None:
    status, body = await stand.rest("GET", "/v1/workers")
    assert (status, body["code"], reason(body)) == (503, 14, "COMPONENT_UNAVAILABLE")
    assert body["details"][1]["retry_delay"] == "1s"
    stub: Any = worker_service_pb2_grpc.WorkerServiceStub(stand.channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ListWorkers(worker_service_pb2.ListWorkersRequest(), timeout=5)
    error = from_rpc_error(caught.value)
    assert isinstance(error, Unavailable)
    assert (error.reason, error.retry_delay) == (Reason.COMPONENT_UNAVAILABLE, 1.0)


async def test_a_body_that_is_too_large(stand: Stand) -> None:
    body = _task_of_size(MAX_MESSAGE_BYTES).getvalue()

    async def in_pieces() -> AsyncIterator[bytes]:
        yield body

    for data, value in ((io.BytesIO(body), f", not {len(body)}"), (in_pieces(), "")):
        status, answer = await stand.rest("POST", "/v1/tasks", data=data)
        assert (status, answer["code"], reason(answer)) == (413, 3, "INVALID_FIELD")
        (violation,) = answer["details"][1]["field_violations"]
        rule = f"must be at most {MAX_MESSAGE_BYTES} bytes{value}"
        assert violation == {"field": "body", "description": rule}


async def test_a_large_body_passes(stand: Stand) -> None:
    status, task = await stand.rest("POST", "/v1/tasks", data=_task_of_size(8 << 20))
    assert (status, len(task["payload"])) == (200, 8 << 20)


def _task_of_size(size: int) -> io.BytesIO:
    return io.BytesIO(json.dumps({"type": "t", "payload": "x" * size}).encode())


async def test_deadlines_hold_for_rest_and_grpc(stand: Stand) -> None:
    status, body = await stand.rest("GET", "/v1/tasks/slow", headers={"grpc-timeout": "300m"})
    # Envoy and the server both watch the deadline; the server's gRPC gives no details.
    assert (status, body["code"]) == (504, 4)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stand.tasks.GetTask(task_service_pb2.GetTaskRequest(task_id="slow"), timeout=0.3)
    assert isinstance(from_rpc_error(caught.value), DeadlineExceeded)


async def test_a_request_id_is_made_here_and_only_then_marked(stand: Stand) -> None:
    _, first = await stand.rest("POST", "/v1/tasks", json={"type": "t"})
    _, second = await stand.rest("POST", "/v1/tasks", json={"type": "t"})
    ids = {first["headers"]["x-request-id"], second["headers"]["x-request-id"]}
    assert len(ids) == 2
    assert first["headers"]["edge"] == "True"
    headers = {"x-request-id": "mine", "x-meshq-edge": "1"}
    _, third = await stand.rest("POST", "/v1/tasks", json={"type": "t"}, headers=headers)
    assert third["headers"]["x-request-id"] == "mine"
    assert (third["headers"]["edge"], third["headers"]["x-meshq-edge"]) == ("False", "")


async def test_the_request_id_comes_back(stand: Stand) -> None:
    url = f"http://{stand.edge}/v1/nothing"
    async with stand.http.get(url, headers={"x-request-id": "mine"}) as answer:
        assert answer.headers["x-request-id"] == "mine"
