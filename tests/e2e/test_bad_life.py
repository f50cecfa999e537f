"""Bad input about the whole life of a task: each is answered with its status, the field and the rule."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from meshq.local.system import System

UNKNOWN_ID = "00000000-0000-7000-8000-000000000000"


@pytest.fixture(autouse=True)
def nothing_in_the_logs(system: System) -> Iterator[None]:
    """No process logs a traceback for what somebody else did wrong."""
    yield
    for name in system.processes:
        assert "Traceback" not in system.logs(name), name


def assert_refused(answer: Any, field: str) -> None:
    assert answer.status == 400, answer.text
    assert (answer.json["code"], answer.reason) == (3, "INVALID_FIELD")
    assert list(answer.violations) == [field]
    rule = answer.violations[field]
    assert ", not " in rule or "must not be empty" in rule, "the rule is told, and the value"


BAD_TASKS: list[tuple[dict[str, Any], str]] = [
    ({"priority": 10}, "priority"),
    ({"priority": -1}, "priority"),
    ({"labels": {"a key": "x"}}, "labels"),
    ({"labels": {"k": "v" * 129}}, "labels"),
    ({"labels": {f"k{n}": "" for n in range(17)}}, "labels"),
    ({"start_delay": "-1s"}, "start_delay"),
    ({"start_delay": "400000000s"}, "start_delay"),
    ({"start_time": "2100-01-01T00:00:00Z"}, "start_time"),
    ({"retry_policy": {"initial_delay": "-1s"}}, "retry_policy.initial_delay"),
    ({"retry_policy": {"initial_delay": "90000s"}}, "retry_policy.initial_delay"),
    ({"retry_policy": {"multiplier": 0.5}}, "retry_policy.multiplier"),
    ({"retry_policy": {"jitter": 1.5}}, "retry_policy.jitter"),
    ({"retry_policy": {"max_delay": "99999999s"}}, "retry_policy.max_delay"),
    ({"retry_policy": {"non_retryable_errors": ["x"] * 33}}, "retry_policy.non_retryable_errors"),
    ({"fairness_key": "k" * 129}, "fairness_key"),
    ({"fairness_weight": 0}, "fairness_weight"),
    ({"fairness_weight": 101}, "fairness_weight"),
    ({"limit_key": "k" * 129}, "limit_key"),
    ({"rate_units": -1}, "rate_units"),
    ({"rate_units": 1_001}, "rate_units"),
    ({"ordering_key": "k" * 129}, "ordering_key"),
    ({"unique_key": "k" * 257}, "unique_key"),
    ({"unique_key": "k", "unique_scope": "UNIQUE_SCOPE_WINDOW"}, "unique_window"),
    ({"unique_key": "k", "unique_scope": "UNIQUE_SCOPE_WINDOW", "unique_window": "0.5s"}, "unique_window"),
    ({"unique_key": "k", "unique_scope": 17}, "unique_scope"),
    ({"unique_scope": "UNIQUE_SCOPE_UNTIL_STARTED"}, "unique_scope"),
    ({"unique_key": "k", "unique_window": "60s"}, "unique_window"),
    ({"unique_key": "k", "unique_policy": 17}, "unique_policy"),
    ({"schedule_to_start_timeout": "0s"}, "schedule_to_start_timeout"),
    ({"start_to_close_timeout": "99999999s"}, "start_to_close_timeout"),
    ({"schedule_to_close_timeout": "-1s"}, "schedule_to_close_timeout"),
    ({"heartbeat_timeout": "0.01s"}, "heartbeat_timeout"),
    ({"heartbeat_timeout": "100000s"}, "heartbeat_timeout"),
]


@pytest.mark.parametrize(("fields", "field"), BAD_TASKS)
def test_a_bad_task(rest: Any, fields: dict[str, Any], field: str) -> None:
    answer = rest("POST", "/v1/tasks", {"type": "t", "queue": "bad-life"} | fields)
    assert answer.status == 400, answer.text
    assert (answer.json["code"], answer.reason) == (3, "INVALID_FIELD")
    (violated,) = answer.violations
    assert violated.startswith(f"task.{field}"), answer.violations
    batch = rest("POST", "/v1/tasks:batchCreate", {"tasks": [{"type": "t", "queue": "bad-life"} | fields]})
    (result,) = batch.json["results"]
    assert result["error"]["code"] == 3
    assert f"tasks[0].{field}" in str(result["error"]["details"])


BAD_QUEUES: list[tuple[dict[str, Any], str]] = [
    ({"queue": "two words"}, "queue.queue"),
    ({"retention_days": 2}, "queue.retention_days"),
    ({"poison_limit": 101}, "queue.poison_limit"),
    ({"poison_limit": -1}, "queue.poison_limit"),
    ({"max_open_tasks": "-1"}, "queue.max_open_tasks"),
    ({"limits": {"max_running": -1}}, "queue.limits.max_running"),
    ({"limits": {"max_running_per_key": 1_000_001}}, "queue.limits.max_running_per_key"),
    ({"limits": {"rate": {"units": "-1"}}}, "queue.limits.rate.units"),
    ({"limits": {"rate": {"units": "1", "period": "0.001s"}}}, "queue.limits.rate.period"),
    ({"limits": {"rate_per_key": {"units": "1", "burst": "1000001"}}}, "queue.limits.rate_per_key.burst"),
    ({"defaults": {"priority": 11}}, "queue.defaults.priority"),
    ({"defaults": {"max_attempts": 101}}, "queue.defaults.max_attempts"),
    ({"defaults": {"heartbeat_timeout": "0.01s"}}, "queue.defaults.heartbeat_timeout"),
    ({"defaults": {"retry_policy": {"jitter": 2}}}, "queue.defaults.retry_policy.jitter"),
]


@pytest.mark.parametrize(("fields", "field"), BAD_QUEUES)
def test_a_bad_queue(rest: Any, fields: dict[str, Any], field: str) -> None:
    name = f"bad-{uuid.uuid4().hex[:8]}"
    assert_refused(rest("POST", "/v1/queues", {"queue": name} | fields), field)
    assert rest("GET", f"/v1/queues/{name}").status == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("PATCH", "/v1/queues/default?update_mask=nonsense", {}, "update_mask"),
        ("PATCH", "/v1/queues/default?update_mask=counts", {}, "update_mask"),
        ("POST", "/v1/queues/default:pause", {"actor": "a" * 129}, "actor"),
        ("POST", "/v1/queues/default:drain", {"reason": "r" * 1_025}, "reason"),
        ("POST", "/v1/queues/two%20words:resume", {}, "queue"),
        ("POST", "/v1/queues/default:purge", {"reason": "r" * 1_025}, "reason"),
        ("GET", "/v1/queues:watch?interval=0.1s", None, "interval"),
        ("GET", "/v1/queues:watch?queues=two+words", None, "queues[0]"),
        ("GET", "/v1/tasks?labels=nonsense", None, "labels[0]"),
        ("GET", "/v1/tasks:count?labels=nonsense", None, "labels[0]"),
        ("GET", "/v1/tasks:count?queue=two+words", None, "queue"),
        ("GET", "/v1/tasks/nonsense/attempts", None, "task_id"),
        ("PATCH", "/v1/tasks/nonsense", {"priority": 1}, "task.task_id"),
        ("PATCH", f"/v1/tasks/{UNKNOWN_ID}", {"priority": 10}, "task.priority"),
        ("PATCH", f"/v1/tasks/{UNKNOWN_ID}?update_mask=queue", {"queue": "other"}, "update_mask"),
        ("POST", "/v1/tasks:cancel", {}, "task_ids"),
        ("POST", "/v1/tasks:cancel", {"filter": {}}, "filter"),
        ("POST", "/v1/tasks:cancel", {"task_ids": ["nonsense"]}, "task_ids[0]"),
        ("POST", "/v1/tasks:cancel", {"filter": {"queue": "q"}, "reason": "r" * 1_025}, "reason"),
        ("POST", "/v1/tasks:delete", {"filter": {}}, "filter"),
        ("POST", "/v1/tasks:delete", {"filter": {"labels": ["x"]}}, "filter.labels[0]"),
        ("POST", "/v1/tasks/nonsense:redrive", {}, "task_id"),
        ("POST", "/v1/tasks:redrive", {"filter": {}}, "filter"),
        (
            "POST",
            "/v1/tasks:redrive",
            {"filter": {"queue": "q", "states": ["TASK_STATE_SUCCEEDED"]}},
            "filter.states[0]",
        ),
        ("POST", "/v1/tasks:redrive", {"filter": {"queue": "q"}, "rate": -1}, "rate"),
        ("POST", "/v1/tasks:redrive", {"filter": {"queue": "q"}, "max_tasks": "-1"}, "max_tasks"),
        ("POST", "/v1/tasks:await", {}, "task_ids"),
        ("POST", "/v1/tasks:await", {"task_ids": ["nonsense"]}, "task_ids[0]"),
        ("POST", "/v1/tasks:await", {"task_ids": [UNKNOWN_ID], "wait_timeout": "601s"}, "wait_timeout"),
        ("POST", "/v1/tasks:watch", {"filter": {"queue": "two words"}}, "filter.queue"),
        ("POST", "/v1/tasks:watch", {"resume_token": "bm9uZQ=="}, "resume_token"),
    ],
)
def test_a_bad_call(rest: Any, method: str, path: str, body: Any, field: str) -> None:
    assert_refused(rest(method, path, body), field)


@pytest.mark.parametrize(
    ("method", "path", "body", "value"),
    [
        ("GET", "/v1/tasks?page_token=x!", None, "'x!'"),
        ("GET", "/v1/queues?page_token=YSBi", None, "'YSBi'"),
        ("GET", "/v1/workers?page_token=x!", None, "'x!'"),
        ("GET", f"/v1/instances?component={'c' * 129}", None, "129"),
        ("POST", "/v1/tasks", {"type": "t", "unique_policy": "UNIQUE_POLICY_REJECT"}, "UNIQUE_POLICY_REJECT"),
        ("POST", "/v1/tasks", {"type": "t", "unique_key": "k", "unique_window": "60s"}, "60 s"),
        ("PATCH", f"/v1/tasks/{UNKNOWN_ID}?update_mask=payload", {"data": "eHl6"}, "3 bytes"),
        ("PATCH", f"/v1/tasks/{UNKNOWN_ID}", {"content_type": "x/y"}, "only content_type"),
        ("POST", "/v1/tasks:cancel", {}, "neither"),
        ("POST", "/v1/tasks:delete", {"task_ids": [UNKNOWN_ID], "filter": {"queue": "q"}}, "both"),
        ("POST", "/v1/tasks:redrive", {"filter": {"states": ["TASK_STATE_FAILED"]}}, "only states"),
        ("POST", "/v1/tasks:watch", {"resume_token": "bm9uZQ=="}, "'bm9uZQ'"),
    ],
)
def test_a_refusal_ends_with_the_value(rest: Any, method: str, path: str, body: Any, value: str) -> None:
    answer = rest(method, path, body)
    assert answer.status == 400, answer.text
    (rule,) = answer.violations.values()
    assert rule.endswith(f", not {value}"), rule


@pytest.mark.parametrize(
    ("outcome", "field"),
    [
        ({"snooze": {"delay": "-1s"}}, "snooze.delay"),
        ({"snooze": {"delay": "99999999s"}}, "snooze.delay"),
        ({"snooze": {"reason": "r" * 1_025}}, "snooze.reason"),
        ({"finish_later": {}}, "finish_later.timeout"),
        ({"finish_later": {"timeout": "0.1s"}}, "finish_later.timeout"),
        ({"failure": {"error": {"type": "E"}, "retry_delay": "-1s"}}, "failure.retry_delay"),
        ({"failure": {"error": {"message": "no type"}}}, "failure.error.type"),
    ],
)
def test_a_bad_end(rest: Any, hand: Any, outcome: dict[str, Any], field: str) -> None:
    hand.create()
    lease = hand.take()
    result = {"lease_token": lease["lease_token"]} | outcome
    answer = rest("POST", "/v1/leases:complete", {"worker_id": hand.worker_id, "results": [result]})
    assert_refused(answer, f"results[0].{field}")
    assert hand.succeed(lease) == "ACCEPTED"


def test_a_bad_checkpoint(rest: Any, hand: Any) -> None:
    hand.create()
    lease = hand.take()
    news = {"lease_token": lease["lease_token"], "checkpoint": "x" * (64 * 1024)}
    answer = rest("POST", "/v1/leases:heartbeat", {"worker_id": hand.worker_id, "progress": [news]})
    assert_refused(answer, "progress[0].checkpoint")
    hand.succeed(lease)


@pytest.mark.parametrize("weight", [-1, 0, 1_001])
def test_a_bad_weight_of_a_queue(rest: Any, hand: Any, weight: int) -> None:
    request = {
        "worker_id": hand.worker_id,
        "task_types": ["t"],
        "queues": [hand.queue],
        "queue_weights": {hand.queue: weight},
    }
    answer = rest("POST", "/v1/leases:poll", request)
    assert answer.status == 400, answer.text
    (violated,) = answer.violations
    assert violated.startswith("queue_weights")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", f"/v1/tasks/{UNKNOWN_ID}/attempts", None),
        ("PATCH", f"/v1/tasks/{UNKNOWN_ID}", {"priority": 1}),
        ("POST", f"/v1/tasks/{UNKNOWN_ID}:redrive", {}),
    ],
)
def test_no_such_task(rest: Any, method: str, path: str, body: Any) -> None:
    answer = rest(method, path, body)
    assert (answer.status, answer.reason) == (404, "TASK_NOT_FOUND")


@pytest.mark.parametrize("verb", ["pause", "drain", "resume", "purge"])
def test_no_such_queue(rest: Any, verb: str) -> None:
    answer = rest("POST", f"/v1/queues/never-used:{verb}", {})
    assert (answer.status, answer.reason) == (404, "QUEUE_NOT_FOUND")
    for method in ("GET", "DELETE", "PATCH"):
        body = {"poison_limit": 3} if method == "PATCH" else None
        answer = rest(method, "/v1/queues/never-used", body)
        assert (answer.status, answer.reason) == (404, "QUEUE_NOT_FOUND"), method
