"""The life of a queue over REST: declared, limited, stopped, watched, deleted."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

Eventually = Callable[[Callable[[], Any], Callable[[Any], bool]], Any]


def waits_for(hand: Any, eventually: Eventually, task: Any, reason: str) -> Any:
    found = eventually(
        lambda: hand.read(task),
        lambda found: (found.get("waiting") or {}).get("reason") == f"WAITING_REASON_{reason}",
    )
    return found["waiting"]


def declare(rest: Any, queue: str, **settings: Any) -> Any:
    answer = rest("POST", "/v1/queues", {"queue": queue} | settings)
    assert answer.status == 200, answer.text
    return answer.json


def test_a_queue_is_declared_changed_and_deleted(rest: Any, hand: Any) -> None:
    made = declare(rest, hand.queue, retention_days=30, limits={"max_running": 3})
    assert (made["retention_days"], made["limits"]["max_running"], made["poison_limit"]) == (30, 3, 5)
    again = rest("POST", "/v1/queues", {"queue": hand.queue})
    assert (again.status, again.reason) == (409, "QUEUE_EXISTS")
    path = f"/v1/queues/{hand.queue}"
    changed = rest("PATCH", path, {"retention_days": 1, "limits": {"rate": {"units": 5}}}).json
    assert changed["retention_days"] == 1
    assert (changed["limits"]["rate"]["units"], changed["limits"]["rate"]["period"]) == ("5", "1s")
    masked = rest("PATCH", f"{path}?update_mask=limits.max_running", {"limits": {"max_running": 9}}).json
    assert (masked["limits"]["max_running"], masked["limits"]["rate"]["units"]) == (9, "5")
    task = hand.create()
    full = rest("DELETE", path)
    assert (full.status, full.reason) == (400, "QUEUE_NOT_EMPTY")
    rest("DELETE", f"/v1/tasks/{task['task_id']}?force=true")
    assert rest("DELETE", path).json["queue"] == hand.queue
    assert rest("GET", path).reason == "QUEUE_NOT_FOUND"


def test_tasks_get_the_defaults_of_their_queue_and_type(rest: Any, hand: Any) -> None:
    declare(
        rest,
        hand.queue,
        defaults={"priority": 4, "max_attempts": 7, "retry_policy": {"initial_delay": "2s"}},
        type_defaults={hand.task_type: {"max_attempts": 2}},
    )
    task = hand.create()
    assert (task["priority"], task["max_attempts"]) == (4, 2)
    assert task["retry_policy"]["initial_delay"] == "2s"
    own = hand.create(priority=0, max_attempts=9)
    assert (own.get("priority"), own["max_attempts"]) == (0, 9)
    assert hand.create(type="another_type")["max_attempts"] == 7


def test_a_task_is_kept_as_long_as_its_queue_says(rest: Any, hand: Any, eventually: Eventually) -> None:
    declare(rest, hand.queue, retention_days=90)
    task = hand.create()
    assert uuid.UUID(task["task_id"]).bytes[-1] & 7 == 5, "the sixth of the retentions"
    hand.succeed(hand.take(), "kept")
    done = eventually(lambda: hand.read(task), lambda found: found["state"] == "TASK_STATE_SUCCEEDED")
    assert done["result"] == "kept"


def test_a_queue_is_paused_and_resumed_and_says_by_whom(rest: Any, hand: Any, eventually: Eventually) -> None:
    task = hand.create()
    before = time.time()
    path = f"/v1/queues/{hand.queue}"
    paused = rest("POST", f"{path}:pause", {"actor": "ann", "reason": "the provider is down"}).json
    assert (paused["pause"]["actor"], paused["pause"]["reason"]) == ("ann", "the provider is down")
    again = rest("POST", f"{path}:pause", {"actor": "bob"}).json
    assert again["pause"] == paused["pause"]
    assert hand.poll(wait=0.5) == []
    waits_for(hand, eventually, task, "QUEUE_PAUSED")
    new = hand.create()
    assert new["task_id"]
    resumed = rest("POST", f"{path}:resume", {"actor": "eve", "reason": "it is back"}).json
    assert resumed.get("pause") is None
    assert (resumed["resumed"]["actor"], resumed["resumed"]["reason"]) == ("eve", "it is back")
    assert rest("GET", path).json["resumed"] == resumed["resumed"]
    found: set[str] = set()
    while len(found) < 2:
        found |= {lease["task"]["task_id"] for lease in hand.poll(most=2)}
    assert found == {task["task_id"], new["task_id"]}
    assert time.time() - before < 30


def test_a_draining_queue_takes_no_tasks_and_works_off_those_it_has(rest: Any, hand: Any) -> None:
    hand.create()
    path = f"/v1/queues/{hand.queue}"
    drained = rest("POST", f"{path}:drain", {"actor": "ann", "reason": "moving"}).json
    assert drained["drain"]["reason"] == "moving"
    refused = hand.try_to_create()
    assert (refused.status, refused.reason) == (400, "QUEUE_DRAINING")
    hand.succeed(hand.take())
    assert rest("POST", f"{path}:pause", {}).json["drain"] == drained["drain"]
    resumed = rest("POST", f"{path}:resume").json
    assert (resumed.get("pause"), resumed.get("drain")) == (None, None), "both end together"
    assert resumed["resumed"]["time"]
    assert hand.try_to_create().status == 200


def test_a_queue_is_purged_of_what_no_worker_has(rest: Any, hand: Any, eventually: Eventually) -> None:
    tasks = [hand.create() for _ in range(5)]
    held = hand.take()
    purged = rest("POST", f"/v1/queues/{hand.queue}:purge", {"reason": "spring"}).json
    assert (purged["cancelled_count"], purged["complete"]) == ("4", True)
    states = {task["task_id"]: "CANCELLED" for task in tasks} | {held["task"]["task_id"]: "RUNNING"}

    def standing() -> dict[str, str]:
        found = rest("POST", "/v1/tasks:batchGet", {"task_ids": list(states)}).json["tasks"]
        return {task["task_id"]: task["state"].removeprefix("TASK_STATE_") for task in found}

    eventually(standing, lambda found: found == states)
    assert hand.succeed(held) == "ACCEPTED"


def test_a_full_queue_refuses(rest: Any, hand: Any, eventually: Eventually) -> None:
    declare(rest, hand.queue, max_open_tasks=2)
    for _ in range(2):
        hand.create()
    refused = eventually(hand.try_to_create, lambda answer: answer.status != 200)
    assert (refused.status, refused.reason) == (429, "QUEUE_FULL")


def test_no_more_run_than_the_queue_allows(rest: Any, hand: Any, eventually: Eventually) -> None:
    declare(rest, hand.queue, limits={"max_running": 2})
    tasks = [hand.create() for _ in range(4)]
    held = hand.poll(most=4)
    while len(held) < 2:
        held += hand.poll(most=4)
    assert len(held) == 2
    assert hand.poll(most=4, wait=0.3) == []
    left = next(task for task in tasks if task["task_id"] not in {item["task"]["task_id"] for item in held})
    waiting = waits_for(hand, eventually, left, "QUEUE_LIMIT")
    assert (waiting["limit"], waiting["in_use"]) == ("2", "2")
    hand.succeed(held.pop())
    assert len(hand.poll(most=4)) == 1
    rest("PATCH", f"/v1/queues/{hand.queue}?update_mask=limits", {})
    assert len(hand.poll(most=4)) == 1


def test_no_more_of_a_key_run_than_the_queue_allows(rest: Any, hand: Any, eventually: Eventually) -> None:
    declare(rest, hand.queue, limits={"max_running_per_key": 1})
    tasks = [hand.create(limit_key="ann") for _ in range(2)]
    other = hand.create(limit_key="bob")
    free = hand.create()
    held: list[Any] = []
    while len(held) < 3:
        held += hand.poll(most=4)
    assert {item["task"]["task_id"] for item in held} == {
        tasks[0]["task_id"],
        other["task_id"],
        free["task_id"],
    }
    assert hand.poll(most=4, wait=0.3) == []
    waiting = waits_for(hand, eventually, tasks[1], "KEY_BUSY")
    assert (waiting["limit"], waiting["in_use"]) == ("1", "1")
    (first,) = (item for item in held if item["task"]["task_id"] == tasks[0]["task_id"])
    hand.succeed(first)
    assert hand.take()["task"]["task_id"] == tasks[1]["task_id"]


def test_tasks_start_no_faster_than_the_queue_allows(rest: Any, hand: Any, eventually: Eventually) -> None:
    declare(rest, hand.queue, limits={"rate": {"units": 2, "period": "3600s", "burst": 2}})
    tasks = [hand.create() for _ in range(3)]
    held: list[Any] = []
    while len(held) < 2:
        held += hand.poll(most=3)
    assert hand.poll(most=3, wait=0.3) == []
    left = next(task for task in tasks if task["task_id"] not in {item["task"]["task_id"] for item in held})
    waiting = waits_for(hand, eventually, left, "RATE_LIMIT")
    assert waiting["limit"] == "2"
    assert waiting["due_time"]


def test_queues_are_watched(rest: Any, hand: Any) -> None:
    declare(rest, hand.queue)
    with rest.open("GET", f"/v1/queues:watch?queues={hand.queue}&interval=0.5s") as stream:
        assert stream.status == 200
        first = _next_queue(stream)
        assert (first["queue"], first["counts"]["open"]) == (hand.queue, "0")
        hand.create()
        while int(_next_queue(stream)["counts"]["open"]) < 1:
            pass
        rest("POST", f"/v1/queues/{hand.queue}:pause", {"reason": "watched"})
        while not (found := _next_queue(stream).get("pause")):
            pass
        assert found["reason"] == "watched"


def _next_queue(stream: Any) -> Any:
    while line := stream.readline():
        for queue in json.loads(line).get("queues", ()):
            return queue
    raise AssertionError("the stream ended")


@pytest.mark.parametrize("state", ["waiting", "scheduled", "pending", "running"])
def test_open_tasks_are_counted_by_state(rest: Any, hand: Any, eventually: Eventually, state: str) -> None:
    if state == "waiting":
        hand.create(ordering_key="k")
        hand.create(ordering_key="k")
    else:
        hand.create(**({"start_delay": "60s"} if state == "scheduled" else {}))
    if state == "running":
        hand.take()
    counts = eventually(
        lambda: rest("GET", f"/v1/queues/{hand.queue}").json["counts"], lambda found: found[state] == "1"
    )
    assert counts["open"] == ("2" if state == "waiting" else "1")
