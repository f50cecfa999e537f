"""The whole system: how the built-in tasks fail, go on, wait and are completed by somebody else."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from typing import Any

import pytest

from meshq.client import RetryPolicy, SyncClient, Task, TaskProgress, TaskState
from meshq.local.system import System
from meshq.worker import LeaseLost, NoRetry, Retry, SyncCompleter

AT_ONCE = RetryPolicy(initial_delay=0.0, jitter=0.0)
SECONDS = 30.0

Eventually = Callable[[Callable[[], Any], Callable[[Any], bool]], Any]


def outcomes(client: SyncClient, task: Task) -> list[str]:
    return [attempt.outcome.value for attempt in client.attempts(task.task_id)]


def test_a_task_that_fails_is_tried_again(client: SyncClient) -> None:
    task = client.run("fail", {"times": 2}, retry=AT_ONCE, timeout=SECONDS)
    assert (task.state, task.result) == (TaskState.SUCCEEDED, {"attempt": 3})
    assert outcomes(client, task) == ["FAILED", "FAILED", "SUCCEEDED"]


def test_attempts_run_out(client: SyncClient) -> None:
    task = client.run("fail", {"times": 9, "error_type": "E"}, retry=AT_ONCE, max_attempts=2, timeout=SECONDS)
    assert task.state is TaskState.FAILED
    assert task.error is not None
    assert (task.error.type, task.error.message) == ("E", "attempt 2 of 9 that fail")
    assert outcomes(client, task) == ["FAILED", "FAILED"]


def test_a_handler_says_when_to_try_again(client: SyncClient) -> None:
    slow = RetryPolicy(initial_delay=3_600.0)
    began = time.monotonic()
    task = client.run("fail", {"retry_delay": 0.5}, retry=slow, timeout=SECONDS)
    assert task.state is TaskState.SUCCEEDED
    assert time.monotonic() - began >= 0.5
    assert client.attempts(task.task_id)[0].retry_delay == dt.timedelta(seconds=0.5)


@pytest.mark.parametrize(
    ("payload", "options"),
    [
        ({"non_retryable": True}, {}),
        ({"error_type": "E"}, {"retry": RetryPolicy(non_retryable_errors=["E"])}),
        ({"times": -1}, {}),  # An input that does not fit.
    ],
)
def test_what_is_no_use_is_not_tried_again(client: SyncClient, payload: Any, options: Any) -> None:
    task = client.run("fail", payload, timeout=SECONDS, **options)
    assert task.state is TaskState.FAILED
    assert outcomes(client, task) == ["FAILED"]


def test_a_later_attempt_goes_on_from_the_checkpoint(client: SyncClient) -> None:
    task = client.run("steps", {"steps": 5, "seconds": 0.5, "fail_after": 3}, retry=AT_ONCE, timeout=SECONDS)
    assert task.result == {"steps": 5, "resumed_after": 3, "attempt": 2}


def test_a_snooze_costs_no_attempt(client: SyncClient) -> None:
    task = client.run("snooze_once", 0.2, max_attempts=1, timeout=SECONDS)
    assert (task.state, task.result) == (TaskState.SUCCEEDED, {"snoozed_seconds": 0.2, "attempt": 2})
    assert (task.attempt, task.spared_attempts) == (2, 1)
    snoozed, _ = client.attempts(task.task_id)
    assert snoozed.outcome.value == "SNOOZED"
    assert snoozed.retry_delay == dt.timedelta(seconds=0.2)


# Finishing later


@pytest.fixture
def completer(system: System) -> Any:
    with SyncCompleter(system.edge) as found:
        yield found


class Deferred:
    """A task that waits for whoever has its lease token."""

    def __init__(self, client: SyncClient, lasting: float = 60.0, **options: Any) -> None:
        # The delay leaves time to watch it from its beginning.
        self.task_id = client.create("finish_later", lasting, start_delay=0.5, **options).task_id
        self._client = client
        self._events = client.watch(self.task_id, timeout=SECONDS)

    def token(self) -> str:
        """The lease token of the next attempt."""
        for event in self._events:
            if isinstance(event, TaskProgress) and isinstance(event.detail, dict):
                return str(event.detail["lease_token"])
            assert not (isinstance(event, Task) and event.done), event
        raise AssertionError

    def ended(self) -> Task:
        return self._client.run(task_id=self.task_id, timeout=SECONDS)


def test_somebody_else_completes_a_task(
    client: SyncClient, completer: SyncCompleter, eventually: Eventually
) -> None:
    task = Deferred(client)
    token = task.token()
    assert completer.progress(token, 0.5, "half way") is None
    eventually(lambda: client.get(task.task_id).state, lambda state: state is TaskState.RUNNING)
    completer.succeed(token, {"paid": True})
    ended = task.ended()
    assert (ended.state, ended.result) == (TaskState.SUCCEEDED, {"paid": True})
    completer.succeed(token, {"paid": True})  # A repetition is answered as the first time.


def test_somebody_else_says_how_it_failed(client: SyncClient, completer: SyncCompleter) -> None:
    task = Deferred(client)
    first = task.token()
    completer.fail(first, Retry(after=0, message="once more"))
    second = task.token()
    assert second != first
    with pytest.raises(LeaseLost):
        completer.heartbeat(first)
    completer.fail(second, NoRetry("refused", type="REFUSED"))
    ended = task.ended()
    assert ended.state is TaskState.FAILED
    assert ended.error is not None
    assert ended.error.type == "REFUSED"
    assert outcomes(client, ended) == ["FAILED", "FAILED"]


def test_nobody_completes_a_task(client: SyncClient) -> None:
    task = client.run("finish_later", 1, max_attempts=1, timeout=SECONDS)
    assert task.state is TaskState.FAILED
    assert task.error is not None
    assert task.error.type == "FINISH_LATER_TIMEOUT"
    assert outcomes(client, task) == ["TIMED_OUT"]


def test_heartbeats_begin_the_time_anew(client: SyncClient, completer: SyncCompleter) -> None:
    task = Deferred(client, 1.5, max_attempts=1)
    token = task.token()
    end = time.monotonic() + 3.0
    while time.monotonic() < end:
        assert completer.heartbeat(token) is None
        time.sleep(0.2)
    completer.succeed(token)
    assert task.ended().state is TaskState.SUCCEEDED


def test_whoever_completes_a_task_hears_of_its_cancellation(
    client: SyncClient, completer: SyncCompleter, eventually: Eventually
) -> None:
    task = Deferred(client)
    token = task.token()
    client.cancel(task.task_id, "enough")
    wish = eventually(lambda: completer.heartbeat(token), lambda wish: wish is not None)
    assert wish.reason == "enough"
    completer.cancel(token, "stopped")
    ended = task.ended()
    assert (ended.state, ended.cancel_reason) == (TaskState.CANCELLED, "enough")
    assert outcomes(client, ended) == ["CANCELLED"]


def test_a_task_is_completed_over_rest(client: SyncClient, rest: Any) -> None:
    task = Deferred(client)
    result = {"lease_token": task.token(), "success": {"result": [1, 2]}}
    answer = rest("POST", "/v1/leases:complete", {"worker_id": "webhook", "results": [result]})
    assert answer.json["acks"][0]["status"] == "RESULT_STATUS_ACCEPTED"
    assert task.ended().result == [1, 2]
