"""What a task may say beyond a plain one: its rules, its defaults, and what is made of it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from meshq.contract.errors import InvalidRequest
from meshq.internal.v1 import dispatch_service_pb2
from meshq.management.conversion.dispatch import dispatch_frame
from meshq.management.conversion.tasks import accept_content, accepted_task, new_task, public_task
from meshq.management.conversion.traits import retry_policy
from meshq.management.conversion.values import milliseconds
from meshq.management.model.queues import UNSET, QueueSettings, RetryPolicy, TaskDefaults
from meshq.management.model.states import State
from meshq.management.model.task import NewTask, TaskRow, sendable
from meshq.v1 import task_pb2

Task: Any = task_pb2.Task
Retry: Any = task_pb2.RetryPolicy
DAY = timedelta(days=1)
YEARS = timedelta(days=3_661)
TIMESTAMP = "must be of the years 1 to 9999 with nanos of 0 to 999999999"
DURATION = "must be within 315576000000 s either way with nanos of the same sign up to 999999999"


def made(settings: QueueSettings = UNSET, **fields: Any) -> NewTask:
    task = Task(type="t", **fields)
    return new_task(task, accept_content(task, "task"), "default", settings)


def spec(new: NewTask) -> task_pb2.Task:
    return task_pb2.Task.FromString(new.spec)


def row_of(new: NewTask) -> TaskRow:
    standing = (new.state, 1, new.max_attempts, new.ready_ms)
    row = TaskRow(new.task_id, "default", "default", "t", *standing, *[None] * 7)  # type: ignore[arg-type]
    return row._replace(traits=new.special.traits if new.special else None)


def delay(field: str, value: timedelta) -> Callable[[task_pb2.Task], None]:
    return lambda task: getattr(task, field).FromTimedelta(value)


def policy(**fields: Any) -> Callable[[task_pb2.Task], None]:
    return lambda task: task.retry_policy.CopyFrom(Retry(**fields))


def said(**fields: Any) -> Callable[[task_pb2.Task], None]:
    return lambda task: task.MergeFrom(Task(**fields))


BROKEN: list[tuple[Callable[[task_pb2.Task], None], str, str]] = [
    (said(priority=10), "priority", "must be 0 to 9, not 10"),
    (said(priority=-1), "priority", "must be 0 to 9, not -1"),
    (said(labels={str(n): "" for n in range(17)}), "labels", "must have at most 16 entries, not 17"),
    (said(labels={"a=b": ""}), "labels", "keys must be 1 to 64 characters of A-Z a-z 0-9 . _ / -, not 'a=b'"),
    (said(labels={"a": "x" * 129}), "labels['a']", "must have at most 128 characters, not 129"),
    (said(labels={"a": "\x00"}), "labels['a']", "must not have the character NUL, not '\\x00'"),
    (delay("start_delay", -DAY), "start_delay", "must be 0 to 316224000 s, not -86400 s"),
    (delay("start_delay", YEARS), "start_delay", "must be 0 to 316224000 s, not 316310400 s"),
    (policy(multiplier=0.5), "retry_policy.multiplier", "must be 1 to 100, not 0.5"),
    (policy(multiplier=float("nan")), "retry_policy.multiplier", "must be 1 to 100, not nan"),
    (policy(jitter=1.5), "retry_policy.jitter", "must be 0 to 1, not 1.5"),
    (policy(initial_delay=2 * DAY), "retry_policy.initial_delay", "must be 0 to 86400 s, not 172800 s"),
    (policy(max_delay=31 * DAY), "retry_policy.max_delay", "must be 0 to 2592000 s, not 2678400 s"),
    (
        policy(non_retryable_errors=["e"] * 33),
        "retry_policy.non_retryable_errors",
        "must have at most 32 entries, not 33",
    ),
    (
        policy(non_retryable_errors=["e", "e" * 257]),
        "retry_policy.non_retryable_errors[1]",
        "must have at most 256 characters, not 257",
    ),
    (said(fairness_key="k" * 129), "fairness_key", "must have at most 128 characters, not 129"),
    (said(limit_key="k" * 129), "limit_key", "must have at most 128 characters, not 129"),
    (said(ordering_key="k" * 129), "ordering_key", "must have at most 128 characters, not 129"),
    (said(unique_key="k" * 257), "unique_key", "must have at most 256 characters, not 257"),
    (said(fairness_weight=0.001), "fairness_weight", "must be 0.01 to 100, not 0.001"),
    (said(fairness_weight=0), "fairness_weight", "must be 0.01 to 100, not 0"),
    (said(rate_units=1_001), "rate_units", "must be 1 to 1000, not 1001"),
    (said(rate_units=-1), "rate_units", "must be 1 to 1000, not -1"),
    (said(unique_scope=7, unique_key="k"), "unique_scope", "must be one of its names, not 7"),
    (
        said(unique_policy=2),
        "unique_policy",
        "must be unset without unique_key, not UNIQUE_POLICY_REJECT",
    ),
    (said(unique_key="k", unique_scope=3), "unique_window", "is required with the scope WINDOW"),
    (
        said(unique_key="k", unique_window=DAY),
        "unique_window",
        "must be unset without the scope WINDOW, not 86400 s",
    ),
    (
        said(unique_key="k", unique_scope=3, unique_window=31 * DAY),
        "unique_window",
        "must be 1 to 2592000 s, not 2678400 s",
    ),
    (
        delay("schedule_to_start_timeout", timedelta()),
        "schedule_to_start_timeout",
        "must be 0.001 to 316224000 s, not 0 s",
    ),
    (
        delay("start_to_close_timeout", 31 * DAY),
        "start_to_close_timeout",
        "must be 0.001 to 2592000 s, not 2678400 s",
    ),
    (
        delay("schedule_to_close_timeout", YEARS),
        "schedule_to_close_timeout",
        "must be 0.001 to 316224000 s, not 316310400 s",
    ),
    (
        delay("heartbeat_timeout", timedelta(milliseconds=99)),
        "heartbeat_timeout",
        "must be 0.1 to 86400 s, not 0.099 s",
    ),
    *(
        (said(**{field: value}), field, f"{TIMESTAMP if field == 'start_time' else DURATION}, not {parts}")
        for field, value, parts in (
            ("start_time", Timestamp(nanos=2 * 10**9), "seconds 0, nanos 2000000000"),
            ("start_time", Timestamp(seconds=-(2**62)), "seconds -4611686018427387904, nanos 0"),
            ("start_time", Timestamp(seconds=10**12), "seconds 1000000000000, nanos 0"),
            ("start_delay", Duration(seconds=5, nanos=-6), "seconds 5, nanos -6"),
            ("heartbeat_timeout", Duration(nanos=2 * 10**9), "seconds 0, nanos 2000000000"),
            ("start_to_close_timeout", Duration(seconds=5, nanos=-6), "seconds 5, nanos -6"),
            ("schedule_to_start_timeout", Duration(seconds=2**60), "seconds 1152921504606846976, nanos 0"),
            ("schedule_to_close_timeout", Duration(seconds=-5, nanos=6), "seconds -5, nanos 6"),
        )
    ),
    (
        policy(initial_delay=Duration(seconds=5, nanos=-6)),
        "retry_policy.initial_delay",
        f"{DURATION}, not seconds 5, nanos -6",
    ),
    (
        policy(max_delay=Duration(nanos=2 * 10**9)),
        "retry_policy.max_delay",
        f"{DURATION}, not seconds 0, nanos 2000000000",
    ),
    (
        said(unique_key="k", unique_scope=3, unique_window=Duration(seconds=5, nanos=-6)),
        "unique_window",
        f"{DURATION}, not seconds 5, nanos -6",
    ),
]


@pytest.mark.parametrize(
    ("change", "field", "rule"), BROKEN, ids=[f"{f}-{n}" for n, (_, f, _) in enumerate(BROKEN)]
)
def test_a_broken_rule_names_field_rule_and_value(
    change: Callable[[task_pb2.Task], None], field: str, rule: str
) -> None:
    task = Task(type="t")
    change(task)
    with pytest.raises(InvalidRequest) as caught:
        accept_content(task, "task")
    assert [(item.field, item.rule) for item in caught.value.violations] == [(f"task.{field}", rule)]


def test_a_start_is_at_most_ten_years_ahead() -> None:
    start = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3_670)
    with pytest.raises(InvalidRequest) as caught:
        accept_content(Task(type="t", start_time=start), "task")
    [violation] = caught.value.violations
    assert violation.field == "task.start_time"
    assert violation.rule == f"must be at most 10 years ahead, not {start:%Y-%m-%dT%H:%M:%SZ}"


@pytest.mark.parametrize(("nanos", "milliseconds_later"), [(0, 0), (1, 1), (999_999, 1), (1_000_000, 1)])
def test_no_task_is_due_within_the_millisecond_before_its_time(nanos: int, milliseconds_later: int) -> None:
    seconds = int(datetime.now(UTC).timestamp()) + 60
    new = made(start_time=Timestamp(seconds=seconds, nanos=nanos))
    assert new.ready_ms == seconds * 1_000 + milliseconds_later


def test_a_plain_task_has_no_traits() -> None:
    task = Task(type="t", queue="q", headers={"a": "b"}, max_attempts=2, data=b"x")
    assert accept_content(task, "task").plain
    assert made(data=b"x").special is None
    assert accept_content(Task(type="t", task_id="mine", state=3, redriven_from="x"), "task").plain


def test_all_traits_are_in_both_views_and_nothing_else_is() -> None:
    new = made(
        data=b"input",
        headers={"h": "v"},
        priority=3,
        labels={"b": "2", "a": "1"},
        retry_policy=Retry(max_delay=DAY),
        fairness_key="f",
        fairness_weight=2.0,
        limit_key="l",
        rate_units=5,
        ordering_key="o",
        unique_key="u",
        unique_policy=task_pb2.UNIQUE_POLICY_REJECT,
        schedule_to_start_timeout=DAY,
        start_to_close_timeout=DAY,
        schedule_to_close_timeout=2 * DAY,
        heartbeat_timeout=DAY,
    )
    assert new.special is not None
    assert new.special.labels == ["a=1", "b=2"]
    assert (new.special.priority, new.special.fairness_key, new.special.ordering_key) == (3, "f", "o")
    assert new.special.start_by_ms == new.ready_ms + 86_400_000
    assert new.special.close_by_ms == new.ready_ms + 2 * 86_400_000
    basic, full = public_task(row_of(new), 0), public_task(row_of(new)._replace(spec=new.spec), 0)
    assert full.data == b"input"
    full.ClearField("data")
    full.ClearField("headers")
    assert basic == full
    assert basic.retry_policy.max_delay.ToTimedelta() == DAY


def test_what_a_priority_of_zero_says_is_kept() -> None:
    settings = QueueSettings(defaults=TaskDefaults(priority=5))
    assert spec(made(settings)).priority == 5
    zero = made(settings, priority=0)
    assert zero.special is not None
    assert (spec(zero).priority, zero.special.priority) == (0, 0)


def test_defaults_come_from_the_type_and_then_from_the_queue() -> None:
    retry = RetryPolicy(initial_ms=5_000, non_retryable=("E",))
    settings = QueueSettings(
        defaults=TaskDefaults(priority=1, max_attempts=7, start_to_close_ms=60_000, heartbeat_ms=5_000),
        type_defaults={"t": TaskDefaults(priority=2, retry=retry, heartbeat_ms=6_000)},
    )
    new = made(settings)
    shown = spec(new)
    assert (new.max_attempts, shown.max_attempts, shown.priority) == (7, 7, 2)
    assert shown.start_to_close_timeout.ToMilliseconds() == 60_000
    assert shown.heartbeat_timeout.ToMilliseconds() == 6_000
    assert new.special is not None
    assert retry_policy(new.special.traits) == retry
    own = made(settings, max_attempts=2, retry_policy=Retry(non_retryable_errors=["F"]))
    assert own.special is not None
    # A policy of its own takes the place of the default as a whole.
    assert retry_policy(own.special.traits) == RetryPolicy(non_retryable=("F",))
    assert list(spec(own).retry_policy.non_retryable_errors) == ["F"]
    assert own.max_attempts == 2


def test_defaults_do_not_make_another_request_of_it() -> None:
    task = Task(type="t")
    assert accept_content(task, "task").encoded == accept_content(Task(type="t"), "task").encoded
    new_task(task, accept_content(task, "task"), "default", QueueSettings(defaults=TaskDefaults(priority=5)))
    assert not task.HasField("priority")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"max_attempts": 7, "headers": {"a": "b"}},
        {"start_delay": timedelta(seconds=5), "priority": 3, "max_attempts": 2},
        {"start_time": datetime(2030, 1, 1, tzinfo=UTC), "retry_policy": Retry(jitter=0.5)},
    ],
)
def test_no_field_is_written_twice(fields: dict[str, Any]) -> None:
    """Parsers merge them, but those that write JSON as they read refuse such a message."""
    defaults = TaskDefaults(priority=5, max_attempts=9, retry=RetryPolicy(), heartbeat_ms=500)
    for settings in (UNSET, QueueSettings(defaults=defaults)):
        encoded = made(settings, **fields).spec
        assert len(task_pb2.Task.FromString(encoded).SerializeToString()) == len(encoded)


def test_a_queue_with_only_attempts_by_default_has_plain_tasks() -> None:
    new = made(QueueSettings(retention_days=30))
    assert (new.special, new.retention_days, new.task_id[-1] & 7) == (None, 30, 4)


def test_a_delay_becomes_a_time() -> None:
    new = made(start_delay=timedelta(minutes=1), schedule_to_close_timeout=timedelta(minutes=2))
    create_ms = int.from_bytes(new.task_id[:6], "big")
    assert (new.state, new.ready_ms) == (State.SCHEDULED, create_ms + 60_000)
    assert spec(new).WhichOneof("start") == "start_time"
    assert milliseconds(spec(new).start_time) == new.ready_ms
    assert new.special is not None
    assert new.special.close_by_ms == new.ready_ms + 120_000
    shown = accepted_task(new)
    assert milliseconds(shown.next_start_time) == new.ready_ms
    assert shown.state == task_pb2.TASK_STATE_SCHEDULED


def test_a_time_that_has_passed_means_at_once() -> None:
    new = made(start_time=datetime(2020, 1, 1, tzinfo=UTC))
    assert (new.state, new.ready_ms) == (State.PENDING, int.from_bytes(new.task_id[:6], "big"))
    assert spec(new).start_time.ToDatetime(UTC).year == 2020
    assert made(start_delay=timedelta()).state == State.PENDING


@pytest.mark.parametrize(
    ("fields", "announced"),
    [
        ({"priority": 1}, False),
        ({"priority": 1, "max_attempts": 1}, True),
        ({"unique_key": "u"}, False),
        ({"unique_key": "u", "unique_scope": 1}, True),
    ],
)
def test_starts_are_announced_where_they_matter(fields: dict[str, Any], announced: bool) -> None:
    special = made(**fields).special
    assert special is not None
    assert special.announce_start is announced


def test_a_window_is_counted_from_the_creation() -> None:
    new = made(unique_key="u", unique_scope=3, unique_window=DAY, start_delay=DAY)
    assert new.special is not None
    assert new.special.unique is not None
    assert new.special.unique.until_ms == int.from_bytes(new.task_id[:6], "big") + 86_400_000


def frame_of(new: NewTask) -> dispatch_service_pb2.DispatchItem:
    return dispatch_frame(0, [sendable(new)]).items[0]


def test_execution_is_told_what_concerns_it() -> None:
    item = frame_of(
        made(
            priority=2,
            limit_key="l",
            rate_units=3,
            fairness_weight=2,
            heartbeat_timeout=DAY,
            labels={"a": "b"},
        )
    )
    assert Task.FromString(item.traits) == Task(
        limit_key="l", rate_units=3, fairness_weight=2, heartbeat_timeout=DAY
    )
    assert (item.priority, item.announce_start, item.start_by_time_ms) == (2, False, 0)
    plain = frame_of(made())
    assert (plain.traits, plain.announce_start, plain.started) == (b"", False, False)
    once = made(max_attempts=1)
    assert frame_of(once).announce_start
    bound = made(schedule_to_start_timeout=DAY)
    assert frame_of(bound).start_by_time_ms == bound.ready_ms + 86_400_000
    again = sendable(once)._replace(repeat=True, started=True)
    assert dispatch_frame(0, [again]).items[0].started
