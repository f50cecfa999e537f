"""What cannot be sent is refused by the name of its field, before it is sent."""

import datetime as dt
import math

import pytest

from meshq.client import RateLimit, RetryPolicy, TaskDefaults, TaskSpec, operations, watching
from meshq.client.completing import redrive_many
from meshq.contract.errors import InvalidRequest
from meshq.v1.task_pb2 import Task
from meshq.v1.task_service_pb2 import WatchTasksResponse

NAIVE = dt.datetime(2026, 1, 2)  # noqa: DTZ001
AWARE = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (TaskSpec(type="t", start_time=NAIVE), "task.start_time"),
        (TaskSpec(type="t", start_time=AWARE, start_delay=1), "task.start_delay"),
        (TaskSpec(type="t", start_delay=math.nan), "task.start_delay"),
        (TaskSpec(type="t", heartbeat_timeout=math.inf), "task.heartbeat_timeout"),
        (TaskSpec(type="t", priority=1 << 40), "task.priority"),
        (TaskSpec(type="t", rate_units=0), "task.rate_units"),
        (TaskSpec(type="t", retry=RetryPolicy(max_delay=math.inf)), "task.retry_policy.max_delay"),
    ],
)
def test_tasks(spec: TaskSpec, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        operations.create_task(spec, None)
    assert [item.field for item in caught.value.violations] == [field]


def test_settings_of_queues() -> None:
    with pytest.raises(InvalidRequest, match=r"queue\.limits\.max_running"):
        operations.create_queue("q", {"max_running": 1 << 40})
    with pytest.raises(InvalidRequest, match=r"queue\.limits\.rate\.period"):
        operations.create_queue("q", {"rate": RateLimit(1, math.nan)})
    with pytest.raises(InvalidRequest, match=r"queue\.type_defaults\[t\]\.max_attempts"):
        operations.create_queue("q", {"type_defaults": {"t": TaskDefaults(max_attempts=0)}})


def test_a_default_of_its_own_goes_before_all_defaults() -> None:
    policy = RetryPolicy(non_retryable_errors=["A"])
    request = operations.create_queue(
        "q",
        {"defaults": TaskDefaults(priority=1, retry=policy), "retry": RetryPolicy(), "max_attempts": 2},
    ).request
    defaults = request.queue.defaults  # type: ignore[attr-defined]
    assert (defaults.priority, defaults.max_attempts) == (1, 2)
    assert defaults.HasField("retry_policy")
    assert not defaults.retry_policy.non_retryable_errors


def test_redriving_at_most_so_many_ends_with_them() -> None:
    steps = redrive_many({"queue": "q"}, None, 5)
    next(steps)
    with pytest.raises(StopIteration) as end:
        steps.send((5, False, ()))
    assert end.value.value == 5


def test_a_watch_of_many_remembers_only_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "REMEMBERED", 2)
    watch = watching.TasksWatch({}, b"")
    told = [len(watch.read(WatchTasksResponse(task=Task(task_id=name)))) for name in "abacab"]
    assert told == [1, 1, 0, 1, 0, 1]
