"""The Python client on the real system: tasks, dead letters, keys and queues, with a worker by hand."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import pytest

from meshq.client import (
    UNSET,
    RateLimit,
    SyncClient,
    Task,
    TaskSpec,
    TaskState,
    UniquePolicy,
    WaitingReason,
)
from meshq.contract.errors import Conflict, InvalidRequest, PreconditionFailed, Reason

SECONDS = 30.0


def create(client: SyncClient, hand: Any, **options: Any) -> Task:
    return client.create(hand.task_type, queue=hand.queue, **options)


def fail_all(client: SyncClient, hand: Any, count: int) -> list[str]:
    """Tasks that have failed for good."""
    ids = [create(client, hand, max_attempts=1).task_id for _ in range(count)]
    for _ in ids:
        hand.fail(hand.take())
    assert client.wait(ids, timeout=SECONDS).satisfied
    return ids


# Tasks


def test_dead_letters_are_redriven_and_deleted(client: SyncClient, hand: Any) -> None:
    first, second, third = fail_all(client, hand, 3)
    new = client.redrive(first)
    assert new.redriven_from == first
    assert client.redrive(first).task_id == new.task_id
    assert client.redrive_many(queue=hand.queue, max_tasks=1) == 1
    assert client.redrive_many(queue=hand.queue, rate=100) == 1
    redriven = {task.redriven_from for task in client.list(queue=hand.queue, states=[TaskState.PENDING])}
    assert redriven <= {first, second, third}
    assert client.count(queue=hand.queue).count == 6
    assert client.delete_many(queue=hand.queue, states=[TaskState.FAILED]) == 3
    assert client.delete_many([first]) == 0


def test_a_task_is_changed_as_long_as_nobody_has_it(client: SyncClient, hand: Any) -> None:
    task = create(client, hand, payload="old", start_delay=3_600, labels={"a": "1"})
    changed = client.update(task.task_id, payload="new", priority=7, start_delay=0, labels={"b": "2"})
    assert (changed.payload, changed.priority, changed.labels) == ("new", 7, {"b": "2"})
    assert hand.take()["task"]["payload"] == "new"
    with pytest.raises(PreconditionFailed) as caught:
        client.update(task.task_id, priority=1)
    assert caught.value.reason is Reason.TASK_STARTED


def test_many_are_run_and_come_back_with_their_results(client: SyncClient) -> None:
    texts = ["one", "one two", "one two three", "one two three four"] * 30
    specs = [TaskSpec(type="word_count", payload=text) for text in texts]
    specs.append(TaskSpec(type="fail", payload={"times": 1, "error_type": "NoLuck"}, max_attempts=1))
    specs.append(TaskSpec(type="word_count", queue="not a name"))
    ended = sorted(client.run_many(specs), key=lambda ran: ran.index)
    assert [ran.index for ran in ended] == list(range(122))
    *counted, failed, refused = ended
    results = [ran.task.result for ran in counted if ran.task]
    assert [result["word_count"] for result in results if isinstance(result, dict)] == [1, 2, 3, 4] * 30
    assert [ran.task.payload for ran in counted if ran.task] == [UNSET] * 120
    assert failed.task is not None
    assert failed.task.error is not None
    assert failed.task.error.type == "NoLuck"
    assert isinstance(refused.error, InvalidRequest)


def test_many_are_cancelled_by_ids_or_a_filter(client: SyncClient, hand: Any) -> None:
    named = [create(client, hand).task_id for _ in range(2)]
    unknown = str(uuid.uuid4())
    done = client.cancel_many([*named, unknown], reason="by name")
    assert (done.count, done.missing) == (2, (unknown,))
    labelled = [create(client, hand, labels={"x": "y"}, start_delay=60).task_id for _ in range(3)]
    assert client.cancel_many(queue=hand.queue, labels={"x": "y"}, reason="by label").count == 3
    found = client.wait([*named, *labelled], timeout=SECONDS).tasks
    assert [(task.state, task.cancel_reason) for task in found] == [
        *[(TaskState.CANCELLED, "by name")] * 2,
        *[(TaskState.CANCELLED, "by label")] * 3,
    ]
    assert client.delete_many(queue=hand.queue, states=[TaskState.CANCELLED]) == 5


def test_a_unique_key_is_shared_refused_or_taken_over(client: SyncClient, hand: Any) -> None:
    held = create(client, hand, unique_key="k")
    assert create(client, hand, unique_key="k").task_id == held.task_id
    with pytest.raises(Conflict) as caught:
        create(client, hand, unique_key="k", unique_policy=UniquePolicy.REJECT)
    assert caught.value.reason is Reason.UNIQUE_KEY_TAKEN
    assert caught.value.metadata["task_id"] == held.task_id
    new = create(client, hand, unique_key="k", unique_policy=UniquePolicy.REPLACE)
    assert client.run(task_id=held.task_id, timeout=SECONDS).state is TaskState.CANCELLED
    assert hand.take()["task"]["task_id"] == new.task_id


# Queues


def test_a_queue_is_stopped_goes_on_and_is_cleared(client: SyncClient, hand: Any) -> None:
    task = create(client, hand)
    news = client.watch_queues([hand.queue], interval=0.5, timeout=SECONDS)
    assert [queue.queue for queue in next(news).queues] == [hand.queue]
    paused = client.pause_queue(hand.queue, "lunch", actor="ann").pause
    assert paused is not None
    assert (paused.actor, paused.reason) == ("ann", "lunch")
    while not any(queue.pause == paused for queue in next(news).queues):
        pass
    assert hand.poll(wait=0.3) == []
    assert client.drain_queue(hand.queue, "moving", actor="ann").drain is not None
    with pytest.raises(PreconditionFailed) as caught:
        create(client, hand)
    assert caught.value.reason is Reason.QUEUE_DRAINING
    resumed = client.resume_queue(hand.queue, "back", actor="bob")
    assert (resumed.pause, resumed.drain) == (None, None)
    assert resumed.resumed is not None
    assert (resumed.resumed.actor, resumed.resumed.reason) == ("bob", "back")
    hand.succeed(hand.take())
    waiting = [create(client, hand, start_delay=delay).task_id for delay in (0, 60, 3_600)]
    assert client.purge_queue(hand.queue, "spring") == 3
    found = client.wait([task.task_id, *waiting], timeout=SECONDS).tasks
    assert [item.state for item in found] == [TaskState.SUCCEEDED, *[TaskState.CANCELLED] * 3]
    assert client.delete_queue(hand.queue).queue == hand.queue
    while hand.queue not in next(news).deleted:
        pass


def test_limits_of_a_queue_hold_until_they_are_taken_back(
    client: SyncClient, hand: Any, eventually: Any
) -> None:
    client.create_queue(hand.queue, max_running=2, max_running_per_key=1)
    alike = [create(client, hand, limit_key="k").task_id for _ in range(2)]
    others = [create(client, hand).task_id for _ in range(2)]
    held = {lease["task"]["task_id"] for lease in hand.poll(most=1) + hand.poll(most=5)}
    assert held == {alike[0], others[0]}
    waiting = eventually(lambda: client.get(alike[1]).waiting, bool)
    assert waiting.reason in {WaitingReason.KEY_BUSY, WaitingReason.QUEUE_LIMIT}
    rate = RateLimit(1, dt.timedelta(hours=1))
    client.update_queue(hand.queue, max_running=None, max_running_per_key=None, rate=rate)
    assert client.queue(hand.queue).limits.rate == RateLimit(1, dt.timedelta(hours=1), 1)
    client.update_queue(hand.queue, rate=None)
    left = {lease["task"]["task_id"] for lease in hand.poll(most=1) + hand.poll(most=5)}
    assert left == {alike[1], others[1]}
