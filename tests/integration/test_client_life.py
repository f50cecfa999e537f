"""The whole life of a task in both clients, against a real gRPC server whose answers the tests write."""

import datetime as dt
from typing import Any

import pytest
from fixtures.scripted import DOWN, Service, client, collected, service, task

from meshq.client import (
    AttemptOutcome,
    Cancelled,
    RateLimit,
    RetryPolicy,
    TaskDefaults,
    TaskSpec,
    TaskState,
    UniquePolicy,
    UniqueScope,
    WaitingReason,
)
from meshq.contract.errors import Aborted, Conflict, InvalidRequest, PreconditionFailed, Reason, Unavailable
from meshq.v1 import queue_service_pb2, task_pb2, task_service_pb2

__all__ = ["client", "service"]

NOON = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)
MINUTE = dt.timedelta(minutes=1)


# Creating and reading


async def test_all_of_a_specification_is_sent(service: Service, client: Any) -> None:
    service.script.append(task())
    await client.create(
        "t",
        priority=0,
        labels={"team": "a"},
        start_delay=1.5,
        retry=RetryPolicy(initial_delay=0, max_delay=MINUTE, jitter=0.0, non_retryable_errors=["E"]),
        fairness_key="f",
        fairness_weight=0.5,
        limit_key="l",
        rate_units=3,
        ordering_key="o",
        unique_key="u",
        unique_scope=UniqueScope.WINDOW,
        unique_window=MINUTE,
        unique_policy=UniquePolicy.REJECT,
        schedule_to_start_timeout=1,
        start_to_close_timeout=2,
        schedule_to_close_timeout=3,
        heartbeat_timeout=0.25,
    )
    sent = service.requests[0].task
    assert sent.HasField("priority")
    assert (dict(sent.labels), sent.start_delay.ToMilliseconds()) == ({"team": "a"}, 1_500)
    policy = sent.retry_policy
    assert policy.HasField("initial_delay")
    assert policy.HasField("jitter")
    assert not policy.HasField("multiplier")
    assert (policy.max_delay.seconds, list(policy.non_retryable_errors)) == (60, ["E"])
    assert (sent.fairness_key, sent.fairness_weight, sent.limit_key, sent.rate_units) == ("f", 0.5, "l", 3)
    assert (sent.ordering_key, sent.unique_key, sent.unique_window.seconds) == ("o", "u", 60)
    assert sent.unique_scope == task_pb2.UNIQUE_SCOPE_WINDOW
    assert sent.unique_policy == task_pb2.UNIQUE_POLICY_REJECT
    timeouts = [sent.schedule_to_start_timeout, sent.start_to_close_timeout]
    timeouts += [sent.schedule_to_close_timeout, sent.heartbeat_timeout]
    assert [item.ToMilliseconds() for item in timeouts] == [1_000, 2_000, 3_000, 250]


async def test_a_time_to_start(service: Service, client: Any) -> None:
    service.script.append(task())
    await client.create("t", start_time=NOON)
    assert service.requests[0].task.start_time.ToDatetime(dt.UTC) == NOON


async def test_a_plain_task_says_nothing_more(service: Service, client: Any) -> None:
    service.script.append(task())
    await client.create("t")
    assert {field.name for field, _ in service.requests[0].task.ListFields()} == {"type"}


async def test_a_taken_unique_key_is_a_conflict_with_the_id(service: Service, client: Any) -> None:
    service.script.append(Conflict("the key is held", Reason.UNIQUE_KEY_TAKEN, task_id="other"))
    with pytest.raises(Conflict) as caught:
        await client.create("t", unique_key="u", unique_policy=UniquePolicy.REJECT)
    assert caught.value.reason is Reason.UNIQUE_KEY_TAKEN
    assert caught.value.metadata == {"task_id": "other"}


async def test_bulk_tells_what_existed(service: Service, client: Any) -> None:
    async def ingest(frames: Any) -> Any:
        async for _ in frames:
            result = task_service_pb2.CreateTaskResult(task_id="id", existing=True)
            yield task_service_pb2.IngestTasksResponse(results=[result])

    service.streams = ingest
    [created] = await collected(client.create_many([TaskSpec(type="t", unique_key="u")]))
    assert (created.task_id, created.existing) == ("id", True)


async def test_a_task_says_all_about_itself(service: Service, client: Any) -> None:
    message = task("RETRYING", attempt=3, spared_attempts=1, priority=4, redriven_from="old")
    message.next_start_time.FromDatetime(NOON)
    message.retry_policy.initial_delay.FromSeconds(60)
    message.waiting.reason = task_pb2.WAITING_REASON_KEY_BUSY
    message.waiting.limit, message.waiting.in_use = 2, 2
    message.progress.fraction = 0.5
    message.unique_scope = task_pb2.UNIQUE_SCOPE_WINDOW
    service.script += [message, task()]
    found = await client.get("id")
    assert (found.spared_attempts, found.priority, found.redriven_from) == (1, 4, "old")
    assert (found.next_start_time, found.retry) == (NOON, RetryPolicy(initial_delay=MINUTE))
    assert (found.waiting.reason, found.waiting.in_use) == (WaitingReason.KEY_BUSY, 2)
    assert (found.progress.fraction, found.unique_scope) == (0.5, UniqueScope.WINDOW)
    plain = await client.get("id")
    assert (plain.waiting, plain.progress, plain.retry, plain.unique_scope) == (None, None, None, None)
    assert (plain.priority, plain.fairness_weight, plain.rate_units) == (0, 1.0, 1)


async def test_attempts(service: Service, client: Any) -> None:
    attempt = task_pb2.Attempt(attempt=1, outcome=task_pb2.ATTEMPT_OUTCOME_LOST, worker_id="w")
    attempt.error.type = "LOST"
    service.script.append(task_service_pb2.ListAttemptsResponse(attempts=[attempt]))
    [found] = await client.attempts("id")
    assert (found.outcome, found.error.type, found.retry_delay) == (AttemptOutcome.LOST, "LOST", None)


async def test_filters(service: Service, client: Any) -> None:
    service.script += [
        task_service_pb2.ListTasksResponse(),
        task_service_pb2.CountTasksResponse(count=7, truncated=True),
    ]
    assert not await collected(client.list(labels={"a": "b"}, queue="q"))
    found = await client.count(labels={"a": "b", "c": ""}, states=[TaskState.FAILED], min_create_time=NOON)
    assert (found.count, found.truncated) == (7, True)
    listed, counted = service.requests
    assert list(listed.labels) == ["a=b"]
    assert list(counted.labels) == ["a=b", "c="]
    assert counted.min_create_time.seconds == int(NOON.timestamp())


# Changing


async def test_only_what_is_named_changes(service: Service, client: Any) -> None:
    service.script += [task(), task()]
    await client.update("id", priority=0, labels={}, payload=None)
    await client.update("id", start_delay=0, data=b"x", content_type="a/b")
    first, second = service.requests
    assert (first.task.task_id, list(first.update_mask.paths)) == ("id", ["labels", "payload", "priority"])
    assert first.task.HasField("payload")
    assert list(second.update_mask.paths) == ["content_type", "data", "start_delay"]
    assert second.task.HasField("start_delay")


async def test_an_update_is_not_repeated(service: Service, client: Any) -> None:
    service.script += [DOWN, task()]
    with pytest.raises(Unavailable):
        await client.update("id", priority=1)
    service.script.appendleft(PreconditionFailed("it runs", Reason.TASK_STARTED))
    with pytest.raises(PreconditionFailed):
        await client.update("id", priority=1)


def cancelled(count: int, complete: bool, *missing: str) -> Any:
    return task_service_pb2.CancelTasksResponse(
        cancelled_count=count, complete=complete, missing_task_ids=missing
    )


async def test_cancelling_many_goes_on_until_complete(service: Service, client: Any) -> None:
    service.script += [cancelled(5, False), DOWN, cancelled(2, True)]
    found = await client.cancel_many(reason="enough", queue="q", states=[TaskState.PENDING])
    assert found == Cancelled(7)
    assert {request.filter.queue for request in service.requests} == {"q"}
    assert service.requests[0].reason == "enough"


async def test_any_number_of_ids_is_cancelled(service: Service, client: Any) -> None:
    service.script += [cancelled(999, False, "1"), cancelled(0, True, "1"), cancelled(500, True, "1200")]
    found = await client.cancel_many(str(number) for number in range(1_500))
    assert found == Cancelled(1_499, ("1", "1200"))
    assert [len(request.task_ids) for request in service.requests] == [1_000, 1_000, 500]
    assert not service.requests[0].HasField("filter")
    assert await client.cancel_many([]) == Cancelled(0)


@pytest.mark.parametrize("method", ["cancel_many", "delete_many"])
async def test_ids_or_a_filter_but_never_all(client: Any, method: str) -> None:
    for arguments, filters in (((), {}), ((["id"],), {"queue": "q"})):
        with pytest.raises(InvalidRequest, match="task_ids"):
            await getattr(client, method)(*arguments, **filters)


async def test_deleting_and_redriving_many(service: Service, client: Any) -> None:
    service.script += [
        task_service_pb2.DeleteTasksResponse(deleted_count=3, complete=False),
        task_service_pb2.DeleteTasksResponse(deleted_count=1, complete=True),
        task_service_pb2.RedriveTasksResponse(redriven_count=4, complete=False),
        task_service_pb2.RedriveTasksResponse(redriven_count=2, complete=True),
        task(redriven_from="old"),
    ]
    assert await client.delete_many(type="t") == 4
    assert await client.redrive_many(queue="q", rate=2.5, max_tasks=10) == 6
    assert (await client.redrive("old")).redriven_from == "old"
    first, second = service.requests[2:4]
    assert (first.rate, first.max_tasks, second.max_tasks) == (2.5, 10, 6)


# Waiting and watching


def awaited(satisfied: bool, *states: str) -> Any:
    return task_service_pb2.AwaitTasksResponse(tasks=[task(state) for state in states], satisfied=satisfied)


async def test_waiting_for_several_goes_on(service: Service, client: Any) -> None:
    service.script += [awaited(False, "RUNNING", "RUNNING"), DOWN, awaited(True, "RUNNING", "SUCCEEDED")]
    found = await client.wait(["a", "b"], mode="any")
    assert found.satisfied
    assert [item.done for item in found.tasks] == [False, True]
    assert {request.mode for request in service.requests} == {task_service_pb2.AWAIT_MODE_ANY}


async def test_waiting_ends_with_its_time_or_without_open_tasks(service: Service, client: Any) -> None:
    service.script += [awaited(False, "RUNNING"), awaited(False)]
    assert not (await client.wait(["a"], timeout=0.0)).satisfied
    assert not (await client.wait(["unknown"])).satisfied


def change(state: str, token: bytes) -> Any:
    return task_service_pb2.WatchTasksResponse(task=task(state), resume_token=token)


async def test_a_watch_of_many_resumes_with_its_token(service: Service, client: Any) -> None:
    sign = task_service_pb2.WatchTasksResponse(resume_token=b"2")
    sign.keepalive.interval.FromSeconds(20)
    service.watches += [
        [change("PENDING", b"1"), sign, Aborted("slow", Reason.WATCH_TOO_SLOW)],
        # A change that was told is told again; and a stream that ends is opened again, too.
        [change("PENDING", b"2"), change("SUCCEEDED", b"3")],
        [Aborted("too much has happened", Reason.RESUME_LOST)],
    ]
    changes = client.watch_tasks(queue="q", labels={"a": "b"}, resume_token=b"0")
    seen = [(item.task.state, item.resume_token) for item in (await anext(changes), await anext(changes))]
    with pytest.raises(Aborted) as caught:
        await anext(changes)
    assert caught.value.reason is Reason.RESUME_LOST
    assert seen == [("PENDING", b"1"), ("SUCCEEDED", b"3")]
    assert [request.resume_token for request in service.requests] == [b"0", b"2", b"3"]
    assert list(service.requests[0].filter.labels) == ["a=b"]


# Queues


def queue(**fields: Any) -> queue_service_pb2.Queue:
    return queue_service_pb2.Queue(queue="q", complete=True, **fields)


async def test_a_queue_says_all_about_itself(service: Service, client: Any) -> None:
    message = queue(retention_days=7, poison_limit=5)
    message.limits.max_running = 10
    message.limits.rate.units = 5
    message.limits.rate.period.FromSeconds(60)
    message.defaults.priority = 0
    message.defaults.heartbeat_timeout.FromSeconds(60)
    message.type_defaults["t"].max_attempts = 2
    message.pause.actor = "me"
    message.resumed.actor = "you"
    service.script.append(message)
    found = await client.queue("q")
    assert (found.limits.max_running, found.limits.rate) == (10, RateLimit(5, MINUTE))
    assert (found.limits.rate_per_key, found.max_open_tasks) == (None, None)
    assert found.defaults == TaskDefaults(priority=0, heartbeat_timeout=MINUTE)
    assert found.type_defaults == {"t": TaskDefaults(max_attempts=2)}
    assert (found.pause.actor, found.drain, found.resumed.actor) == ("me", None, "you")


async def test_settings_are_named_one_by_one(service: Service, client: Any) -> None:
    service.script += [queue(), queue()]
    await client.create_queue("q", defaults=TaskDefaults(max_attempts=5), max_running=3)
    await client.update_queue(
        "q",
        allow_missing=True,
        rate=RateLimit(10, MINUTE, burst=20),
        max_open_tasks=None,
        priority=3,
        retry=RetryPolicy(initial_delay=1),
        type_defaults={"t": TaskDefaults(heartbeat_timeout=1)},
    )
    created, updated = service.requests
    assert (created.queue.defaults.max_attempts, created.queue.limits.max_running) == (5, 3)
    assert updated.allow_missing
    assert list(updated.update_mask.paths) == [
        *("defaults.priority", "defaults.retry_policy", "limits.rate", "max_open_tasks", "type_defaults")
    ]
    rate = updated.queue.limits.rate
    assert (rate.units, rate.period.seconds, rate.burst) == (10, 60, 20)
    assert updated.queue.type_defaults["t"].heartbeat_timeout.seconds == 1


async def test_queues_are_stopped_and_cleared(service: Service, client: Any) -> None:
    service.script += [queue()] * 4
    service.script += [
        queue_service_pb2.PurgeQueueResponse(cancelled_count=2, complete=False),
        queue_service_pb2.PurgeQueueResponse(cancelled_count=1, complete=True),
    ]
    await client.pause_queue("q", "deploy", actor="me")
    await client.drain_queue("q", "moving", actor="me")
    await client.resume_queue("q", "back", actor="me")
    assert (await client.delete_queue("q")).queue == "q"
    assert await client.purge_queue("q", "wrong") == 3
    pause, drain, resume, *_, purge = service.requests
    assert (pause.actor, pause.reason, drain.reason, purge.reason) == ("me", "deploy", "moving", "wrong")
    assert (resume.actor, resume.reason) == ("me", "back")


async def test_queues_are_watched(service: Service, client: Any) -> None:
    service.watches += [
        [
            queue_service_pb2.WatchQueuesResponse(queues=[queue()]),
            queue_service_pb2.WatchQueuesResponse(),
            Unavailable("gone", Reason.DRAINING, retry_delay=0.01),
        ],
        [queue_service_pb2.WatchQueuesResponse(deleted_queues=["q"]), InvalidRequest.field("queues", "x")],
    ]
    stream = client.watch_queues(["q"], interval=0.5)
    found = [await anext(stream), await anext(stream)]
    seen = [([item.queue for item in news.queues], news.deleted) for news in found]
    with pytest.raises(InvalidRequest):
        await anext(stream)
    assert seen == [(["q"], ()), ([], ("q",))]
    assert service.requests[0].interval.ToMilliseconds() == 500
