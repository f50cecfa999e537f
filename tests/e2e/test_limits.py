"""Every limit of docs/limits.md at its edge, over REST: the last value is taken, and the one beyond it is
refused with its field, the rule and the value."""

from __future__ import annotations

import base64
import datetime as dt
import uuid
from typing import Any, TypeAlias

import pytest

DAY = 86_400
FAR = 3_660 * DAY
MIB = 1 << 20


def ahead(seconds: float) -> str:
    return (dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)).isoformat()


FARTHER = ahead(FAR + 3_600)
"""The tests may take an hour until this one is tried."""


def binary(size: int) -> str:
    return base64.b64encode(bytes(size)).decode()


def keys(count: int) -> dict[str, str]:
    return {f"k{n}": "" for n in range(count)}


def beyond(answer: Any, field: str, value: str) -> None:
    """What is beyond a limit is refused in full."""
    assert answer.status == 400, answer.text
    assert (answer.json["code"], answer.reason) == (3, "INVALID_FIELD")
    (named,) = answer.violations
    assert named == field or named.startswith(f"{field}["), named
    rule = answer.violations[named]
    assert rule.startswith(("must", "keys must")), rule
    assert value in rule, rule


def policy(**fields: Any) -> dict[str, Any]:
    return {"retry_policy": fields}


def window(seconds: float) -> dict[str, Any]:
    return {"unique_key": "k", "unique_scope": "UNIQUE_SCOPE_WINDOW", "unique_window": f"{seconds}s"}


Edge: TypeAlias = tuple[dict[str, Any], dict[str, Any], str, str]
"""What is taken, what is not, the field, and what the rule says of the value."""

TASKS: list[Edge] = [
    ({"type": "t" * 128}, {"type": "t" * 129}, "type", "ttt"),
    ({"type": "0.a_b-C"}, {"type": "-a"}, "type", "'-a'"),
    ({"queue": "edge-" + "q" * 123}, {"queue": "q" * 129}, "queue", "qqq"),
    ({"data": binary(MIB)}, {"data": binary(MIB + 1)}, "data", "1048577"),
    ({"data": "", "content_type": "c" * 128}, {"data": "", "content_type": "c" * 129}, "content_type", "129"),
    ({"headers": keys(32)}, {"headers": keys(33)}, "headers", "33"),
    ({"headers": {"k" * 64: ""}}, {"headers": {"k" * 65: ""}}, "headers", "65"),
    ({"headers": {"k": "v" * 1_024}}, {"headers": {"k": "v" * 1_025}}, "headers", "1025"),
    ({"priority": 9}, {"priority": 10}, "priority", "10"),
    ({"priority": 0}, {"priority": -1}, "priority", "-1"),
    ({"labels": keys(16)}, {"labels": keys(17)}, "labels", "17"),
    ({"labels": {"k" * 64: ""}}, {"labels": {"k" * 65: ""}}, "labels", "kkk"),
    ({"labels": {"A-z.0_/9": ""}}, {"labels": {"": ""}}, "labels", "''"),
    ({"labels": {"k": "v" * 128}}, {"labels": {"k": "v" * 129}}, "labels", "129"),
    ({"start_delay": f"{FAR}s"}, {"start_delay": f"{FAR + 1}s"}, "start_delay", f"{FAR + 1} s"),
    ({"start_delay": "0s"}, {"start_delay": "-0.001s"}, "start_delay", "-0.001 s"),
    ({"start_time": ahead(FAR - 60)}, {"start_time": FARTHER}, "start_time", FARTHER[:19]),
    ({"fairness_key": "k" * 128}, {"fairness_key": "k" * 129}, "fairness_key", "129"),
    ({"limit_key": "k" * 128}, {"limit_key": "k" * 129}, "limit_key", "129"),
    ({"ordering_key": "k" * 128}, {"ordering_key": "k" * 129}, "ordering_key", "129"),
    ({"fairness_weight": 0.01}, {"fairness_weight": 0.0099}, "fairness_weight", "0.0099"),
    ({"fairness_weight": 100}, {"fairness_weight": 100.01}, "fairness_weight", "100.01"),
    ({"rate_units": 1_000}, {"rate_units": 1_001}, "rate_units", "1001"),
    ({"rate_units": 1}, {"rate_units": -1}, "rate_units", "-1"),
    ({"unique_key": "k" * 256}, {"unique_key": "k" * 257}, "unique_key", "257"),
    (window(1), window(0.999), "unique_window", "0.999 s"),
    (window(30 * DAY), window(30 * DAY + 1), "unique_window", f"{30 * DAY + 1} s"),
    *(
        ({name: f"{least}s"}, {name: f"{less}s"}, name, f"{less} s")
        for name, least, less in (
            ("schedule_to_start_timeout", 0.001, 0),
            ("schedule_to_close_timeout", 0.001, 0),
            ("start_to_close_timeout", 0.001, 0),
            ("heartbeat_timeout", 0.1, 0.099),
        )
    ),
    *(
        ({name: f"{most}s"}, {name: f"{most + 1}s"}, name, f"{most + 1} s")
        for name, most in (
            ("schedule_to_start_timeout", FAR),
            ("schedule_to_close_timeout", FAR),
            ("start_to_close_timeout", 30 * DAY),
            ("heartbeat_timeout", DAY),
        )
    ),
    ({"max_attempts": 100}, {"max_attempts": 101}, "max_attempts", "101"),
    ({"max_attempts": 1}, {"max_attempts": -1}, "max_attempts", "-1"),
    (policy(initial_delay="0s"), policy(initial_delay="-0.001s"), "retry_policy.initial_delay", "-0.001 s"),
    (
        policy(initial_delay=f"{DAY}s"),
        policy(initial_delay=f"{DAY + 1}s"),
        "retry_policy.initial_delay",
        f"{DAY + 1} s",
    ),
    (policy(multiplier=1), policy(multiplier=0.99), "retry_policy.multiplier", "0.99"),
    (policy(multiplier=100), policy(multiplier=100.1), "retry_policy.multiplier", "100.1"),
    (policy(max_delay="0s"), policy(max_delay="-1s"), "retry_policy.max_delay", "-1 s"),
    (
        policy(max_delay=f"{30 * DAY}s"),
        policy(max_delay=f"{30 * DAY + 1}s"),
        "retry_policy.max_delay",
        f"{30 * DAY + 1} s",
    ),
    (policy(jitter=1), policy(jitter=1.01), "retry_policy.jitter", "1.01"),
    (policy(jitter=0), policy(jitter=-0.01), "retry_policy.jitter", "-0.01"),
    (
        policy(non_retryable_errors=["x"] * 32),
        policy(non_retryable_errors=["x"] * 33),
        "retry_policy.non_retryable_errors",
        "33",
    ),
    (
        policy(non_retryable_errors=["x" * 256]),
        policy(non_retryable_errors=["x" * 257]),
        "retry_policy.non_retryable_errors",
        "257",
    ),
]


@pytest.mark.parametrize("edge", TASKS)
def test_a_task(rest: Any, hand: Any, edge: Edge) -> None:
    taken, refused, field, value = edge
    answer = hand.try_to_create(**taken)
    assert answer.status == 200, answer.text
    beyond(hand.try_to_create(**refused), f"task.{field}", value)


@pytest.mark.parametrize(
    ("taken", "refused"), [("!" + "x" * 126 + "~", "x" * 129), ("x", "a b"), ("y", "\u00e4")]
)
def test_a_request_id(rest: Any, taken: str, refused: str) -> None:
    def create(request_id: str) -> Any:
        return rest("POST", "/v1/tasks:batchCreate", {"tasks": [{"type": "t"}], "request_id": request_id})

    assert create(uuid.uuid4().hex + taken[32:]).status == 200
    beyond(create(refused), "request_id", f", not '{refused[:60]}'")


def limited(**fields: Any) -> dict[str, Any]:
    return {"limits": fields}


QUEUES: list[Edge] = [
    *(
        (limited(**{name: most}), limited(**{name: most + 1}), f"limits.{name}", str(most + 1))
        for name, most in (("max_running", 10**6), ("max_running_per_key", 10**6))
    ),
    *(
        (limited(**{name: 1}), limited(**{name: -1}), f"limits.{name}", "-1")
        for name in ("max_running", "max_running_per_key")
    ),
    *(
        (
            limited(**{rate: {"units": 1} | taken}),
            limited(**{rate: {"units": 1} | refused}),
            f"limits.{rate}.{field}",
            value,
        )
        for rate in ("rate", "rate_per_key")
        for taken, refused, field, value in (
            ({"units": 10**6}, {"units": 10**6 + 1}, "units", str(10**6 + 1)),
            ({"units": 1}, {"units": -1}, "units", "-1"),
            ({"burst": 10**6}, {"burst": 10**6 + 1}, "burst", str(10**6 + 1)),
            ({"burst": 1}, {"burst": -1}, "burst", "-1"),
            ({"period": "0.010s"}, {"period": "0.009s"}, "period", "0.009 s"),
            ({"period": f"{30 * DAY}s"}, {"period": f"{30 * DAY + 1}s"}, "period", f"{30 * DAY + 1} s"),
        )
    ),
    ({"max_open_tasks": 10**9}, {"max_open_tasks": 10**9 + 1}, "max_open_tasks", str(10**9 + 1)),
    ({"max_open_tasks": 1}, {"max_open_tasks": -1}, "max_open_tasks", "-1"),
    ({"poison_limit": 100}, {"poison_limit": 101}, "poison_limit", "101"),
    ({"poison_limit": 1}, {"poison_limit": -1}, "poison_limit", "-1"),
    *(
        ({"retention_days": days}, {"retention_days": days + 1}, "retention_days", str(days + 1))
        for days in (1, 3, 7, 14, 30, 90, 180, 365)
    ),
    (
        {"type_defaults": {f"t{n}": {} for n in range(64)}},
        {"type_defaults": {f"t{n}": {} for n in range(65)}},
        "type_defaults",
        "65",
    ),
    *(
        ({"defaults": taken}, {"defaults": refused}, f"defaults.{field}", value)
        for taken, refused, field, value in TASKS
        if field.startswith(("retry_policy", "priority", "max_attempts")) or field.endswith("_timeout")
    ),
    (
        {"type_defaults": {"t": {"priority": 9}}},
        {"type_defaults": {"t": {"priority": 10}}},
        "type_defaults",
        "10",
    ),
]


@pytest.mark.parametrize("edge", QUEUES)
def test_a_queue(rest: Any, edge: Edge) -> None:
    taken, refused, field, value = edge
    name = f"edge-{uuid.uuid4().hex[:10]}"
    beyond(rest("POST", "/v1/queues", {"queue": name} | refused), f"queue.{field}", value)
    answer = rest("POST", "/v1/queues", {"queue": name} | taken)
    assert answer.status == 200, answer.text
    beyond(rest("PATCH", f"/v1/queues/{name}", refused), f"queue.{field}", value)
    assert rest("DELETE", f"/v1/queues/{name}").status == 200


def test_all_settings_of_a_queue_together(rest: Any) -> None:
    name = f"edge-{uuid.uuid4().hex[:10]}"
    large = {"retry_policy": {"non_retryable_errors": ["x" * 250] * 30}}
    taken = {"type_defaults": {f"t{n}": large for n in range(8)}}
    refused = {"type_defaults": {f"t{n}": large for n in range(9)}}
    answer = rest("POST", "/v1/queues", {"queue": name} | refused)
    assert answer.status == 400
    ((field, rule),) = answer.violations.items()
    assert field == "queue"
    assert "65536" in rule
    assert rest("POST", "/v1/queues", {"queue": name} | taken).status == 200
    assert rest("DELETE", f"/v1/queues/{name}").status == 200


IDS = [str(uuid.UUID(int=n)) for n in range(1_001)]
LABELS = [f"k{n}=v" for n in range(17)]

CALLS: list[tuple[str, dict[str, Any], dict[str, Any], str, str]] = [
    (
        "/v1/tasks:batchCreate",
        {"tasks": [{"type": "t", "queue": "edge"}] * 1_000},
        {"tasks": [{"type": "t"}] * 1_001},
        "tasks",
        "1001",
    ),
    (
        "/v1/tasks:batchCreate",
        {"tasks": [{"type": "t", "queue": "edge", "data": binary(MIB - 100)}] * 8},
        {"tasks": [{"type": "t", "queue": "edge", "data": binary(MIB)}] * 8},
        "tasks",
        "8388608",
    ),
    ("/v1/tasks:batchGet", {"task_ids": IDS[:1_000]}, {"task_ids": IDS}, "task_ids", "1001"),
    (
        "/v1/tasks:await",
        {"task_ids": IDS[:1_000], "wait_timeout": "600s"},
        {"task_ids": IDS},
        "task_ids",
        "1001",
    ),
    (
        "/v1/tasks:await",
        {"task_ids": IDS[:1], "wait_timeout": "0s"},
        {"task_ids": IDS[:1], "wait_timeout": "601s"},
        "wait_timeout",
        "601 s",
    ),
    ("/v1/tasks:cancel", {"task_ids": IDS[:1_000]}, {"task_ids": IDS}, "task_ids", "1001"),
    ("/v1/tasks:delete", {"task_ids": IDS[:1_000]}, {"task_ids": IDS}, "task_ids", "1001"),
    (
        "/v1/tasks:cancel",
        {"task_ids": IDS[:1], "reason": "r" * 1_024},
        {"task_ids": IDS[:1], "reason": "r" * 1_025},
        "reason",
        "1025",
    ),
    ("/v1/queues/edge:pause", {"reason": "r" * 1_024}, {"reason": "r" * 1_025}, "reason", "1025"),
    ("/v1/queues/edge:pause", {"actor": "a" * 128}, {"actor": "a" * 129}, "actor", "129"),
    ("/v1/queues/edge:drain", {"reason": "r" * 1_024}, {"reason": "r" * 1_025}, "reason", "1025"),
    ("/v1/queues/edge:drain", {"actor": "a" * 128}, {"actor": "a" * 129}, "actor", "129"),
    ("/v1/queues/edge:resume", {"reason": "r" * 1_024}, {"reason": "r" * 1_025}, "reason", "1025"),
    ("/v1/queues/edge:resume", {"actor": "a" * 128}, {"actor": "a" * 129}, "actor", "129"),
    ("/v1/queues/edge:purge", {"reason": "r" * 1_024}, {"reason": "r" * 1_025}, "reason", "1025"),
    *(
        (
            "/v1/tasks:redrive",
            {"filter": {"queue": "none"}} | taken,
            {"filter": {"queue": "none"}} | refused,
            field,
            value,
        )
        for taken, refused, field, value in (
            ({"rate": 0.001}, {"rate": 0.0009}, "rate", "0.0009"),
            ({"rate": 100_000}, {"rate": 100_001}, "rate", "100001"),
            ({"max_tasks": 1_000_000}, {"max_tasks": 1_000_001}, "max_tasks", "1000001"),
            ({"max_tasks": 1}, {"max_tasks": -1}, "max_tasks", "-1"),
        )
    ),
    *(
        (
            f"/v1/tasks:{verb}",
            {"filter": {"labels": LABELS[:16]}},
            {"filter": {"labels": LABELS}},
            "filter.labels",
            "17",
        )
        for verb in ("cancel", "delete", "redrive")
    ),
]


@pytest.mark.parametrize(("path", "edge"), [(path, edge) for path, *edge in CALLS])
def test_a_call(rest: Any, path: str, edge: Edge) -> None:
    taken, refused, field, value = edge
    rest("POST", "/v1/queues", {"queue": "edge"})
    assert rest("POST", "/v1/queues/edge:resume").status == 200
    beyond(rest("POST", path, refused), field, value)
    answer = rest("POST", path, taken)
    assert answer.status == 200, answer.text
    rest("POST", "/v1/queues/edge:resume")
    rest("POST", "/v1/queues/edge:purge", {})


@pytest.mark.parametrize(
    ("taken", "refused", "field", "value"),
    [
        ("/v1/tasks?queue=none&page_size=1000", "/v1/tasks?page_size=1001", "page_size", "1001"),
        ("/v1/tasks?queue=none&page_size=1", "/v1/tasks?page_size=-1", "page_size", "-1"),
        ("/v1/queues?page_size=1000", "/v1/queues?page_size=1001", "page_size", "1001"),
        ("/v1/workers?page_size=1000", "/v1/workers?page_size=1001", "page_size", "1001"),
        *(
            (
                f"/v1/tasks{verb}?" + "&".join(f"labels={label}" for label in LABELS[:16]),
                f"/v1/tasks{verb}?" + "&".join(f"labels={label}" for label in LABELS),
                "labels",
                "17",
            )
            for verb in ("", ":count")
        ),
    ],
)
def test_a_look(rest: Any, taken: str, refused: str, field: str, value: str) -> None:
    answer = rest("GET", taken)
    assert answer.status == 200, answer.text
    beyond(rest("GET", refused), field, value)


@pytest.mark.parametrize(
    ("taken", "refused", "field", "value"),
    [
        ("interval=0.500s", "interval=0.499s", "interval", "0.499 s"),
        ("interval=60s", "interval=61s", "interval", "61 s"),
        (
            "&".join(f"queues=q{n}" for n in range(100)),
            "&".join(f"queues=q{n}" for n in range(101)),
            "queues",
            "101",
        ),
    ],
)
def test_a_watch_of_queues(rest: Any, taken: str, refused: str, field: str, value: str) -> None:
    with rest.open("GET", f"/v1/queues:watch?{taken}") as response:
        assert response.status == 200
        assert response.readline()
    beyond(rest("GET", f"/v1/queues:watch?{refused}"), field, value)


@pytest.mark.parametrize(
    ("taken", "refused", "field", "value"),
    [
        ({"worker_id": "w" * 128}, {"worker_id": "w" * 129}, "worker_id", "www"),
        (
            {"task_types": [f"t{n}" for n in range(256)]},
            {"task_types": [f"t{n}" for n in range(257)]},
            "task_types",
            "257",
        ),
        (
            {"queues": [f"t{n}" for n in range(256)]},
            {"queues": [f"t{n}" for n in range(257)]},
            "queues",
            "257",
        ),
        ({"queue_weights": {"none": 1_000}}, {"queue_weights": {"none": 1_001}}, "queue_weights", "1001"),
        ({"queue_weights": {"none": 1}}, {"queue_weights": {"none": 0}}, "queue_weights", "0"),
        ({"max_tasks": 1_000}, {"max_tasks": 1_001}, "max_tasks", "1001"),
        ({"wait_timeout": "0s"}, {"wait_timeout": "60.001s"}, "wait_timeout", "60.001 s"),
        ({"lease_ttl": "1s"}, {"lease_ttl": "0.999s"}, "lease_ttl", "0.999 s"),
        ({"lease_ttl": "43200s"}, {"lease_ttl": "43201s"}, "lease_ttl", "43201 s"),
    ],
)
def test_a_poll(rest: Any, taken: dict[str, Any], refused: dict[str, Any], field: str, value: str) -> None:
    request = {"worker_id": "edge", "task_types": ["t"], "queues": ["none"], "wait_timeout": "0s"}
    answer = rest("POST", "/v1/leases:poll", request | taken)
    assert answer.status == 200, answer.text
    beyond(rest("POST", "/v1/leases:poll", request | refused), field, value)


LEASED: list[Edge] = [
    ({"message": "m" * 1_024}, {"message": "m" * 1_025}, "message", "1025"),
    ({"fraction": 1}, {"fraction": 1.01}, "fraction", "1.01"),
    ({"detail": "x" * (16 * 1_024 - 3)}, {"detail": "x" * (16 * 1_024 - 2)}, "detail", "16385"),
    ({"checkpoint": "x" * (64 * 1_024 - 4)}, {"checkpoint": "x" * (64 * 1_024 - 3)}, "checkpoint", "65537"),
]


@pytest.mark.parametrize("edge", LEASED)
def test_news(rest: Any, hand: Any, edge: Edge) -> None:
    taken, refused, field, value = edge
    hand.create()
    lease = hand.take()
    hand.beat(lease, **taken)
    news = {"lease_token": lease["lease_token"]} | refused
    answer = rest("POST", "/v1/leases:heartbeat", {"worker_id": hand.worker_id, "progress": [news]})
    beyond(answer, f"progress[0].{field}", value)


ENDS: list[Edge] = [
    ({"success": {"data": binary(MIB)}}, {"success": {"data": binary(MIB + 1)}}, "success.data", "1048577"),
    (
        {"success": {"data": "", "content_type": "c" * 128}},
        {"success": {"data": "", "content_type": "c" * 129}},
        "success.content_type",
        "129",
    ),
    (
        {"failure": {"error": {"type": "E"}, "retry_delay": f"{30 * DAY}s"}},
        {"failure": {"error": {"type": "E"}, "retry_delay": f"{30 * DAY + 1}s"}},
        "failure.retry_delay",
        f"{30 * DAY + 1} s",
    ),
    (
        {"snooze": {"delay": f"{365 * DAY}s"}},
        {"snooze": {"delay": f"{365 * DAY + 1}s"}},
        "snooze.delay",
        f"{365 * DAY + 1} s",
    ),
    ({"snooze": {"delay": "0s"}}, {"snooze": {"delay": "-1s"}}, "snooze.delay", "-1 s"),
    (
        {"finish_later": {"timeout": "1s"}},
        {"finish_later": {"timeout": "0.999s"}},
        "finish_later.timeout",
        "0.999 s",
    ),
    (
        {"finish_later": {"timeout": f"{30 * DAY}s"}},
        {"finish_later": {"timeout": f"{30 * DAY + 1}s"}},
        "finish_later.timeout",
        f"{30 * DAY + 1} s",
    ),
    ({"release": {"reason": "r" * 1_024}}, {"release": {"reason": "r" * 1_025}}, "release.reason", "1025"),
]


@pytest.mark.parametrize("edge", ENDS)
def test_an_end(rest: Any, hand: Any, edge: Edge) -> None:
    taken, refused, field, value = edge
    hand.create()
    lease = hand.take()
    result = {"lease_token": lease["lease_token"]} | refused
    answer = rest("POST", "/v1/leases:complete", {"worker_id": hand.worker_id, "results": [result]})
    beyond(answer, f"results[0].{field}", value)
    assert hand.end(lease, **taken) == "ACCEPTED"


def test_a_piece_of_output(rest: Any, hand: Any) -> None:
    hand.create()
    lease = hand.take()

    def write(**piece: Any) -> Any:
        output = {"lease_token": lease["lease_token"]} | piece
        return rest("POST", "/v1/leases:heartbeat", {"worker_id": hand.worker_id, "outputs": [output]})

    assert write(stream="s" * 64, chunk=binary(64 * 1_024)).status == 200
    beyond(write(stream="s" * 65), "outputs[0].stream", "65")
    beyond(write(stream="log", chunk=binary(64 * 1_024 + 1)), "outputs[0].chunk", "65537")


def test_what_is_said_of_an_error_is_cut(rest: Any, hand: Any) -> None:
    task = hand.create(max_attempts=1)
    error = {"type": "t" * 257, "message": "m" * 4_097, "traceback": "b" * (64 * 1_024 + 1)}
    assert hand.end(hand.take(), failure={"error": error}) == "ACCEPTED"
    (attempt,) = rest("GET", f"/v1/tasks/{task['task_id']}/attempts").json["attempts"]
    sizes = [len(attempt["error"][name]) for name in ("type", "message", "traceback")]
    assert sizes == [256, 4_096, 64 * 1_024]
