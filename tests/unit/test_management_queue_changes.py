"""Settings of queues as callers write them: rules, and masks."""

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import ParseDict

from meshq.contract.errors import InvalidRequest
from meshq.management.conversion.queue_changes import checked_queue, merged_settings, settings_paths
from meshq.management.model.queues import UNSET, Hold, Limits, QueueSettings, Rate, RetryPolicy, TaskDefaults
from meshq.v1.queue_service_pb2 import Queue, UpdateQueueRequest

HELD = QueueSettings(
    defaults=TaskDefaults(priority=3, max_attempts=2),
    type_defaults={"t": TaskDefaults(priority=1)},
    limits=Limits(max_running=5, rate=Rate(10, 1_000, 10)),
    retention_days=30,
    pause=Hold("ann", "", 1),
    resumed=Hold("eve", "", 2),
)


def queue(**fields: Any) -> Queue:
    return ParseDict({"queue": "q", **fields}, Queue())


def merged(before: QueueSettings, *paths: str, **fields: Any) -> QueueSettings:
    request = UpdateQueueRequest(queue=queue(**fields), update_mask=FieldMask(paths=paths))
    return merged_settings(before, request.queue, settings_paths(request))


def test_a_declared_queue_has_the_defaults_of_what_it_leaves_out() -> None:
    assert checked_queue(queue()) == UNSET
    assert checked_queue(queue(pause={"actor": "x"}, resumed={"actor": "x"}, counts={"open": "7"})) == UNSET
    assert checked_queue(queue(limits={"rate": {"units": "3"}})).limits.rate == Rate(3, 1_000, 3)
    policy = checked_queue(queue(defaults={"retryPolicy": {"initialDelay": "0s"}})).defaults.retry
    assert policy == RetryPolicy(initial_ms=0)


@pytest.mark.parametrize(
    ("fields", "field", "rule"),
    [
        ({"queue": "a b"}, "queue.queue", "not 'a b'"),
        ({"defaults": {"priority": 10}}, "queue.defaults.priority", "must be 0 to 9, not 10"),
        ({"defaults": {"priority": -1}}, "queue.defaults.priority", "must be 0 to 9, not -1"),
        ({"defaults": {"maxAttempts": 101}}, "queue.defaults.max_attempts", "must be 1 to 100, not 101"),
        (
            {"defaults": {"retryPolicy": {"multiplier": 0.5}}},
            "queue.defaults.retry_policy.multiplier",
            "must be 1 to 100, not 0.5",
        ),
        (
            {"defaults": {"retryPolicy": {"jitter": "NaN"}}},
            "queue.defaults.retry_policy.jitter",
            "must be 0 to 1, not nan",
        ),
        (
            {"defaults": {"retryPolicy": {"initialDelay": "86401s"}}},
            "queue.defaults.retry_policy.initial_delay",
            "must be 0 to 86400 s, not 86401 s",
        ),
        (
            {"defaults": {"retryPolicy": {"nonRetryableErrors": ["x" * 257]}}},
            "queue.defaults.retry_policy.non_retryable_errors[0]",
            "must have at most 256 characters, not 257",
        ),
        (
            {"defaults": {"heartbeatTimeout": "0.05s"}},
            "queue.defaults.heartbeat_timeout",
            "must be 0.1 to 86400 s, not 0.05 s",
        ),
        (
            {"typeDefaults": {"t": {"startToCloseTimeout": "-1s"}}},
            "queue.type_defaults['t'].start_to_close_timeout",
            "must be 0.001 to 2592000 s, not -1 s",
        ),
        ({"typeDefaults": {"": {}}}, "queue.type_defaults", "is required"),
        (
            {"typeDefaults": {f"t{n}": {} for n in range(65)}},
            "queue.type_defaults",
            "must have at most 64 entries, not 65",
        ),
        ({"limits": {"maxRunning": -1}}, "queue.limits.max_running", "must be 0 to 1000000, not -1"),
        ({"limits": {"rate": {"burst": "5"}}}, "queue.limits.rate.units", "must be 1 to 1000000, not 0"),
        (
            {"limits": {"ratePerKey": {"units": "1", "period": "0.001s"}}},
            "queue.limits.rate_per_key.period",
            "must be 0.01 to 2592000 s, not 0.001 s",
        ),
        ({"retentionDays": 2}, "queue.retention_days", "must be one of 1, 3, 7, 14, 30, 90, 180, 365, not 2"),
        ({"poisonLimit": 101}, "queue.poison_limit", "must be 1 to 100, not 101"),
        ({"maxOpenTasks": "-5"}, "queue.max_open_tasks", "must be 1 to 1000000000, not -5"),
        (
            {
                "typeDefaults": {
                    f"t{n}": {"retryPolicy": {"nonRetryableErrors": ["x" * 256] * 32}} for n in range(10)
                }
            },
            "queue",
            "must have at most 65536 bytes of settings together",
        ),
    ],
)
def test_a_broken_rule_is_named_with_field_and_value(fields: dict[str, Any], field: str, rule: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        checked_queue(queue(**fields))
    (violation,) = caught.value.violations
    assert violation.field == field
    assert rule in violation.rule
    if "queue" not in fields:
        with pytest.raises(InvalidRequest):
            merged(UNSET, **fields)


def test_a_time_that_is_none_is_named_with_its_value() -> None:
    # Of JSON it could not even be read.
    message = queue(limits={"rate": {"units": "1", "period": "1s"}}, defaults={"heartbeatTimeout": "1s"})
    message.limits.rate.period.nanos = -6
    message.defaults.heartbeat_timeout.nanos = 2_000_000_000
    with pytest.raises(InvalidRequest) as caught:
        checked_queue(message)
    assert {item.field: item.rule.rpartition(", not ")[2] for item in caught.value.violations} == {
        "queue.defaults.heartbeat_timeout": "seconds 1, nanos 2000000000",
        "queue.limits.rate.period": "seconds 1, nanos -6",
    }


def test_a_mask_changes_what_it_names_and_nothing_else() -> None:
    fields = {"limits": {"maxRunning": 9}, "defaults": {"priority": 0}, "retentionDays": 1}
    assert merged(HELD, "limits.max_running", **fields) == HELD._replace(
        limits=HELD.limits._replace(max_running=9)
    )
    assert merged(HELD, "limits", **fields) == HELD._replace(limits=Limits(max_running=9))
    assert merged(HELD, "defaults.priority", **fields).defaults == TaskDefaults(priority=0, max_attempts=2)


def test_a_mask_unsets_what_the_call_leaves_out() -> None:
    bare = merged(HELD, "limits", "defaults", "type_defaults", "retention_days")
    assert bare == UNSET._replace(pause=HELD.pause, resumed=HELD.resumed)
    assert merged(HELD, "defaults.priority").defaults == TaskDefaults(max_attempts=2)
    assert merged(HELD, "limits.rate").limits == Limits(max_running=5)


def test_without_a_mask_what_is_set_changes() -> None:
    changed = merged(HELD, limits={"maxRunning": 6}, typeDefaults={"u": {"priority": 2}})
    assert changed == HELD._replace(
        limits=HELD.limits._replace(max_running=6), type_defaults={"u": TaskDefaults(priority=2)}
    )
    assert merged(HELD) == HELD


@pytest.mark.parametrize(
    "path", ["pause", "resumed", "counts", "limits.rate.units", "limits.x", "type_defaults.t", "", "*"]
)
def test_a_mask_names_settings_only(path: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        merged(UNSET, path)
    assert caught.value.violations[0].field == "update_mask"
