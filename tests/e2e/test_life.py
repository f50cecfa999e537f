"""The whole life of a task over REST, with a worker that is nothing but polls."""

from __future__ import annotations

import datetime as dt
import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

Eventually = Callable[[Callable[[], Any], Callable[[Any], bool]], Any]

QUICK = {"initial_delay": "0.05s", "multiplier": 1, "jitter": 0}


def state(task: Any) -> str:
    name: str = task["state"]
    return name.removeprefix("TASK_STATE_")


def moment(text: str) -> float:
    return dt.datetime.fromisoformat(text).timestamp()


@pytest.fixture
def becomes(hand: Any, eventually: Eventually) -> Callable[..., Any]:
    """Waits until a task is in a state."""

    def wait(task: Any, wanted: str) -> Any:
        return eventually(lambda: hand.read(task), lambda found: state(found) == wanted)

    return wait


@pytest.fixture
def waits_for(hand: Any, eventually: Eventually) -> Callable[..., Any]:
    """Waits until a task waits for a reason."""

    def wait(task: Any, reason: str) -> Any:
        found = eventually(
            lambda: hand.read(task),
            lambda found: (found.get("waiting") or {}).get("reason") == f"WAITING_REASON_{reason}",
        )
        assert found["waiting"]["message"]
        return found["waiting"]

    return wait


# --- Retries -----------------------------------------------------------------------------------------


def test_a_failed_attempt_is_made_again_and_every_attempt_is_kept(rest: Any, hand: Any, becomes: Any) -> None:
    task = hand.create(max_attempts=3, retry_policy=QUICK)
    first = hand.take()
    error = {"type": "Broken", "message": "no disk", "traceback": "at line 7"}
    assert hand.end(first, failure={"error": error}) == "ACCEPTED"
    second = hand.take()
    assert second["attempt"] == 2
    hand.fail(second, "Worse", retry_delay="1.5s")
    retrying = becomes(task, "RETRYING")
    assert retrying["error"]["type"] == "Worse"
    third = hand.take()
    assert time.time() >= moment(retrying["next_start_time"]) - 0.01
    hand.succeed(third, {"done": True})
    done = becomes(task, "SUCCEEDED")
    assert (done["attempt"], done["result"]) == (3, {"done": True})
    attempts = rest("GET", f"/v1/tasks/{task['task_id']}/attempts").json["attempts"]
    assert [item["attempt"] for item in attempts] == [1, 2, 3]
    outcomes = [item["outcome"].removeprefix("ATTEMPT_OUTCOME_") for item in attempts]
    assert outcomes == ["FAILED", "FAILED", "SUCCEEDED"]
    assert attempts[0]["error"] == error
    assert {item["worker_id"] for item in attempts} == {hand.worker_id}
    assert all(moment(item["start_time"]) <= moment(item["end_time"]) for item in attempts)


def test_the_last_failure_is_the_error_of_the_task(rest: Any, hand: Any, becomes: Any) -> None:
    task = hand.create(max_attempts=2, retry_policy=QUICK)
    for kind in ("First", "Second"):
        hand.fail(hand.take(), kind)
    assert becomes(task, "FAILED")["error"]["type"] == "Second"
    assert len(rest("GET", f"/v1/tasks/{task['task_id']}/attempts").json["attempts"]) == 2


def test_a_worker_may_say_never(hand: Any, becomes: Any) -> None:
    task = hand.create(max_attempts=5, retry_policy=QUICK)
    hand.fail(hand.take(), non_retryable=True)
    assert becomes(task, "FAILED")["attempt"] == 1


def test_a_policy_names_errors_after_which_no_attempt_is_made(hand: Any, becomes: Any) -> None:
    policy = {**QUICK, "non_retryable_errors": ["Hopeless"]}
    task = hand.create(max_attempts=5, retry_policy=policy)
    hand.fail(hand.take(), "Broken")
    hand.fail(hand.take(), "Hopeless")
    assert becomes(task, "FAILED")["attempt"] == 2


def test_a_lease_that_runs_out_is_a_lost_attempt(rest: Any, hand: Any, becomes: Any) -> None:
    task = hand.create(max_attempts=2)
    hand.take(lease_ttl="1s")
    again = hand.take(wait=20)
    assert again["attempt"] == 2
    hand.succeed(again)
    becomes(task, "SUCCEEDED")
    attempts = rest("GET", f"/v1/tasks/{task['task_id']}/attempts").json["attempts"]
    assert attempts[0]["outcome"] == "ATTEMPT_OUTCOME_LOST"


def test_with_one_attempt_a_received_task_is_never_started_twice(hand: Any, becomes: Any) -> None:
    task = hand.create(max_attempts=1)
    hand.take(lease_ttl="1s")
    assert state(hand.read(task)) == "RUNNING"
    assert becomes(task, "FAILED")["error"]["type"] == "LOST"
    assert hand.poll(wait=0.3) == []


# --- Snooze, completion by others, checkpoints, progress -----------------------------------------------


def test_snoozing_costs_no_attempt(rest: Any, hand: Any, becomes: Any) -> None:
    task = hand.create(max_attempts=1)
    assert hand.end(hand.take(), snooze={"delay": "1.5s", "reason": "not yet"}) == "ACCEPTED"
    due = moment(becomes(task, "SCHEDULED")["next_start_time"])
    lease = hand.take()
    assert time.time() >= due - 0.01
    hand.succeed(lease)
    done = becomes(task, "SUCCEEDED")
    assert (done["attempt"], done["spared_attempts"]) == (2, 1)
    attempts = rest("GET", f"/v1/tasks/{task['task_id']}/attempts").json["attempts"]
    assert [item["outcome"] for item in attempts] == ["ATTEMPT_OUTCOME_SNOOZED", "ATTEMPT_OUTCOME_SUCCEEDED"]


def test_whoever_has_the_token_completes_a_task_later(hand: Any, becomes: Any) -> None:
    task = hand.create()
    lease = hand.take(lease_ttl="1s")
    assert hand.end(lease, finish_later={"timeout": "30s"}) == "ACCEPTED"
    becomes(task, "RUNNING")
    assert hand.poll(wait=2) == [], "it outlives the lease that the worker had"
    assert hand.beat(lease)["lost_lease_tokens"] == []
    assert hand.succeed(lease, "from somebody else") == "ACCEPTED"
    assert becomes(task, "SUCCEEDED")["result"] == "from somebody else"


def test_what_is_not_finished_later_times_out(rest: Any, hand: Any, becomes: Any) -> None:
    task = hand.create(max_attempts=1)
    hand.end(hand.take(), finish_later={"timeout": "1s"})
    assert becomes(task, "FAILED")["error"]["type"] == "FINISH_LATER_TIMEOUT"
    (attempt,) = rest("GET", f"/v1/tasks/{task['task_id']}/attempts").json["attempts"]
    assert attempt["outcome"] == "ATTEMPT_OUTCOME_TIMED_OUT"


def test_the_next_attempt_gets_the_checkpoint(hand: Any, becomes: Any) -> None:
    task = hand.create(retry_policy=QUICK)
    first = hand.take()
    assert first.get("checkpoint") is None
    hand.beat(first, checkpoint={"row": 17})
    hand.fail(first)
    second = hand.take()
    assert second["checkpoint"] == {"row": 17}
    hand.beat(second, checkpoint={"row": 30})
    hand.fail(second)
    assert hand.take()["checkpoint"] == {"row": 30}
    assert state(hand.read(task)) in {"PENDING", "RUNNING"}


def test_progress_of_a_running_task_is_read(hand: Any, eventually: Eventually) -> None:
    task = hand.create()
    lease = hand.take()
    hand.beat(lease, fraction=0.25, message="a quarter", detail={"rows": 5})
    found = eventually(lambda: hand.read(task), lambda found: found.get("progress"))
    assert found["progress"]["fraction"] == 0.25
    assert (found["progress"]["message"], found["progress"]["detail"]) == ("a quarter", {"rows": 5})


# --- Delay, priority, timeouts ---------------------------------------------------------------------


@pytest.mark.parametrize("form", ["start_delay", "start_time"])
def test_a_delayed_task_starts_at_its_time(hand: Any, waits_for: Any, form: str) -> None:
    due = time.time() + 1.5
    written = dt.datetime.fromtimestamp(due, dt.UTC).isoformat()
    task = hand.create(**({"start_delay": "1.5s"} if form == "start_delay" else {"start_time": written}))
    assert state(task) == "SCHEDULED"
    assert abs(moment(task["start_time"]) - due) < 1
    assert moment(waits_for(task, "NOT_DUE")["due_time"]) == pytest.approx(
        moment(task["start_time"]), abs=0.01
    )
    lease = hand.take()
    assert time.time() >= moment(task["start_time"]) - 0.01
    assert hand.poll(wait=0.3) == []
    hand.succeed(lease)


def test_higher_priorities_come_first_and_equal_ones_in_order(rest: Any, hand: Any) -> None:
    # A queue with a limit as a whole lives on one shard, where the order is exact.
    rest("POST", "/v1/queues", {"queue": hand.queue, "limits": {"max_running": 100}})
    made = [(priority, hand.create(priority=priority)["task_id"]) for priority in (0, 5, 0, 9, 5)]
    found: list[str] = []
    while len(found) < len(made):
        found += [lease["task"]["task_id"] for lease in hand.poll(most=1)]
    assert found == [task_id for _, task_id in sorted(made, key=lambda item: -item[0])]


def test_a_task_that_nobody_starts_expires(hand: Any, becomes: Any) -> None:
    task = hand.create(schedule_to_start_timeout="0.5s")
    ended = becomes(task, "EXPIRED")
    assert ended["error"]["type"] == "SCHEDULE_TO_START_TIMEOUT"
    assert hand.poll(wait=0.2) == []


def test_an_attempt_may_take_so_long(rest: Any, hand: Any, becomes: Any) -> None:
    task = hand.create(start_to_close_timeout="0.5s", max_attempts=2, retry_policy=QUICK)
    late = hand.take()
    second = hand.take()
    assert second["attempt"] == 2
    assert hand.succeed(late) == "LEASE_LOST"
    hand.succeed(second)
    becomes(task, "SUCCEEDED")
    first, _ = rest("GET", f"/v1/tasks/{task['task_id']}/attempts").json["attempts"]
    assert first["outcome"] == "ATTEMPT_OUTCOME_TIMED_OUT"
    assert first["error"]["type"] == "START_TO_CLOSE_TIMEOUT"


def test_a_silent_handler_times_out(hand: Any, becomes: Any) -> None:
    task = hand.create(heartbeat_timeout="0.8s", max_attempts=1)
    lease = hand.take()
    for _ in range(4):
        time.sleep(0.3)
        assert hand.beat(lease)["lost_lease_tokens"] == []
    assert becomes(task, "FAILED")["error"]["type"] == "HEARTBEAT_TIMEOUT"


def test_a_task_may_take_so_long_in_all(hand: Any, becomes: Any) -> None:
    task = hand.create(schedule_to_close_timeout="1s", max_attempts=5, retry_policy=QUICK)
    lease = hand.take()
    ended = becomes(task, "CANCELLING")
    assert hand.beat(lease)["cancels"]
    hand.end(lease, cancelled={})
    ended = becomes(task, "EXPIRED")
    assert ended["error"]["type"] == "SCHEDULE_TO_CLOSE_TIMEOUT"


# --- Cancellation ---------------------------------------------------------------------------------


def test_a_running_task_is_cancelled_and_confirms(rest: Any, hand: Any, becomes: Any) -> None:
    task = hand.create()
    lease = hand.take()
    answer = rest("POST", f"/v1/tasks/{task['task_id']}:cancel", {"reason": "enough"})
    assert state(answer.json) == "CANCELLING"
    (cancel,) = hand.beat(lease)["cancels"]
    assert (cancel["lease_token"], cancel["reason"]) == (lease["lease_token"], "enough")
    assert hand.end(lease, cancelled={"message": "stopped"}) == "ACCEPTED"
    assert becomes(task, "CANCELLED")["cancel_reason"] == "enough"


def test_success_before_the_cancellation_is_confirmed_wins(rest: Any, hand: Any, becomes: Any) -> None:
    task = hand.create()
    lease = hand.take()
    rest("POST", f"/v1/tasks/{task['task_id']}:cancel")
    hand.succeed(lease, 1)
    assert becomes(task, "SUCCEEDED")["result"] == 1


@pytest.mark.parametrize("delay", ["60s", "3600s"])  # On its shard, and in the ledger for now.
def test_what_waits_for_its_time_is_cancelled_at_once(rest: Any, hand: Any, becomes: Any, delay: str) -> None:
    scheduled = hand.create(start_delay=delay)
    assert state(scheduled) == "SCHEDULED"
    retrying = hand.create(retry_policy={**QUICK, "initial_delay": delay})
    hand.fail(hand.take())
    becomes(retrying, "RETRYING")
    for task in (scheduled, retrying):
        answer = rest("POST", f"/v1/tasks/{task['task_id']}:cancel", {"reason": "enough"})
        assert (answer.status, state(answer.json)) in {(200, "CANCELLING"), (200, "CANCELLED")}
        assert becomes(task, "CANCELLED")["cancel_reason"] == "enough"
    first, *_ = rest("GET", f"/v1/tasks/{retrying['task_id']}/attempts").json["attempts"]
    assert first["outcome"] == "ATTEMPT_OUTCOME_FAILED"


def test_many_are_cancelled_by_a_filter(rest: Any, hand: Any, becomes: Any) -> None:
    red = [hand.create(labels={"colour": "red"}) for _ in range(3)]
    blue = hand.create(labels={"colour": "blue"})
    answer = rest(
        "POST",
        "/v1/tasks:cancel",
        {"filter": {"queue": hand.queue, "labels": ["colour=red"]}, "reason": "no red"},
    )
    assert (answer.status, answer.json["cancelled_count"], answer.json["complete"]) == (200, "3", True)
    for task in red:
        assert becomes(task, "CANCELLED")["cancel_reason"] == "no red"
    assert state(hand.read(blue)) == "PENDING"
    by_id = rest("POST", "/v1/tasks:cancel", {"task_ids": [blue["task_id"], str(uuid.uuid4())]}).json
    assert (by_id["cancelled_count"], len(by_id["missing_task_ids"])) == ("1", 1)


# --- Labels, uniqueness, order ----------------------------------------------------------------------


def test_tasks_are_found_by_labels(rest: Any, hand: Any) -> None:
    a = hand.create(labels={"team": "a", "kind": "x"})
    b = hand.create(labels={"team": "b", "kind": "x"})
    for query, wanted in (
        ("labels=team=a", {a["task_id"]}),
        ("labels=kind=x", {a["task_id"], b["task_id"]}),
        ("labels=kind=x&labels=team=b", {b["task_id"]}),
        ("labels=team=c", set()),
    ):
        page = rest("GET", f"/v1/tasks?queue={hand.queue}&{query}").json
        assert {task["task_id"] for task in page["tasks"]} == wanted
        count = rest("GET", f"/v1/tasks:count?queue={hand.queue}&{query}").json
        assert (int(count["count"]), count["truncated"]) == (len(wanted), False)
    assert hand.read(a)["labels"] == {"team": "a", "kind": "x"}


def test_a_unique_key_is_held_until_the_task_has_ended(rest: Any, hand: Any, becomes: Any) -> None:
    first = hand.create(unique_key="order-1")
    assert hand.create(unique_key="order-1")["task_id"] == first["task_id"]
    batch = rest(
        "POST",
        "/v1/tasks:batchCreate",
        {"tasks": [{"type": hand.task_type, "queue": hand.queue, "unique_key": "order-1"}]},
    ).json["results"]
    assert (batch[0]["task_id"], batch[0]["existing"]) == (first["task_id"], True)
    refused = hand.try_to_create(unique_key="order-1", unique_policy="UNIQUE_POLICY_REJECT")
    assert (refused.status, refused.reason) == (409, "UNIQUE_KEY_TAKEN")
    assert first["task_id"] in refused.text
    assert hand.create(unique_key="order-2")["task_id"] != first["task_id"]
    (lease,) = (item for item in hand.poll(most=5) if item["task"]["task_id"] == first["task_id"])
    hand.succeed(lease)
    becomes(first, "SUCCEEDED")
    assert hand.create(unique_key="order-1")["task_id"] != first["task_id"]


def test_a_new_task_takes_the_place_of_the_old_one(hand: Any, becomes: Any) -> None:
    old = hand.create(unique_key="k")
    new = hand.create(unique_key="k", unique_policy="UNIQUE_POLICY_REPLACE")
    assert new["task_id"] != old["task_id"]
    becomes(old, "CANCELLED")
    assert hand.create(unique_key="k")["task_id"] == new["task_id"]


def test_a_unique_key_may_end_with_the_start_or_with_a_window(hand: Any) -> None:
    started = {"unique_key": "s", "unique_scope": "UNIQUE_SCOPE_UNTIL_STARTED"}
    first = hand.create(**started)
    lease = hand.take()
    assert hand.create(**started)["task_id"] != first["task_id"]
    hand.succeed(lease)
    windowed = {"unique_key": "w", "unique_scope": "UNIQUE_SCOPE_WINDOW", "unique_window": "1s"}
    first = hand.create(**windowed)
    assert hand.create(**windowed)["task_id"] == first["task_id"]
    time.sleep(1.1)
    assert hand.create(**windowed)["task_id"] != first["task_id"]


def test_tasks_with_an_ordering_key_run_one_after_the_other(hand: Any, waits_for: Any) -> None:
    tasks = [hand.create(ordering_key="account-1", retry_policy=QUICK) for _ in range(3)]
    other = hand.create(ordering_key="account-2")
    assert [state(task) for task in tasks[1:]] == ["WAITING", "WAITING"]
    assert waits_for(tasks[1], "PREDECESSOR")["predecessor_task_id"] == tasks[0]["task_id"]
    held = {lease["task"]["task_id"]: lease for lease in _all_of(hand, 2)}
    assert held.keys() == {tasks[0]["task_id"], other["task_id"]}
    hand.fail(held[tasks[0]["task_id"]])
    again = hand.take()
    assert (again["task"]["task_id"], again["attempt"]) == (tasks[0]["task_id"], 2)
    hand.succeed(again)
    for task in tasks[1:]:
        lease = hand.take()
        assert lease["task"]["task_id"] == task["task_id"]
        hand.succeed(lease)


def _all_of(hand: Any, count: int) -> list[Any]:
    found: list[Any] = []
    while len(found) < count:
        found += hand.poll(most=count)
    return found


# --- Knowing and changing ----------------------------------------------------------------------------


def test_a_task_says_what_it_waits_for(hand: Any, waits_for: Any) -> None:
    waiting = waits_for(hand.create(), "NO_WORKER")
    assert waiting["workers"] == 0
    hand.poll(wait=0.1, task_types=["another_type"])
    assert hand.poll(wait=5)
    assert waits_for(hand.create(), "IN_LINE")["workers"] == 1


def test_a_task_that_does_not_run_yet_is_changed(rest: Any, hand: Any) -> None:
    task = hand.create(payload="old", start_delay="3600s", labels={"a": "1"})
    path = f"/v1/tasks/{task['task_id']}"
    changed = rest("PATCH", path, {"priority": 7, "labels": {"b": "2"}}).json
    assert (changed["priority"], changed["labels"]) == (7, {"b": "2"})
    assert state(changed) == "SCHEDULED"
    changed = rest("PATCH", path, {"payload": {"new": True}, "start_delay": "0s"}).json
    assert changed["payload"] == {"new": True}
    lease = hand.take()
    assert (lease["task"]["payload"], lease["task"]["priority"]) == ({"new": True}, 7)
    refused = rest("PATCH", path, {"priority": 1})
    assert (refused.status, refused.reason) == (400, "TASK_STARTED")
    page = rest("GET", f"/v1/tasks?queue={hand.queue}&labels=b=2").json
    assert [item["task_id"] for item in page["tasks"]] == [task["task_id"]]


def test_a_ready_task_is_taken_back_and_changed(rest: Any, hand: Any) -> None:
    task = hand.create(payload=1)
    changed = rest("PATCH", f"/v1/tasks/{task['task_id']}?update_mask=payload", {"payload": 2})
    assert changed.status == 200, changed.text
    assert hand.take()["task"]["payload"] == 2
    assert hand.poll(wait=0.3) == []


def test_any_or_all_of_several_tasks_are_awaited(rest: Any, hand: Any) -> None:
    tasks = [hand.create() for _ in range(2)]
    ids = [task["task_id"] for task in tasks]
    lease = hand.take()
    hand.succeed(lease)
    done = lease["task"]["task_id"]
    any_ = rest("POST", "/v1/tasks:await", {"task_ids": ids, "mode": "AWAIT_MODE_ANY"}).json
    assert any_["satisfied"]
    assert {item["task_id"]: state(item) for item in any_["tasks"]}[done] == "SUCCEEDED"
    all_ = rest("POST", "/v1/tasks:await", {"task_ids": ids, "wait_timeout": "0.2s"}).json
    assert not all_["satisfied"]
    hand.succeed(hand.take())
    all_ = rest("POST", "/v1/tasks:await", {"task_ids": [*ids, str(uuid.uuid4())], "wait_timeout": "5s"}).json
    assert [item["task_id"] for item in all_["tasks"]] == ids
    assert len(all_["missing_task_ids"]) == 1


def test_changes_are_watched_by_a_filter_and_resumed(rest: Any, hand: Any) -> None:
    wanted = {"filter": {"queue": hand.queue, "labels": ["watch=me"]}}
    with rest.open("POST", "/v1/tasks:watch", wanted) as stream:
        assert stream.status == 200
        hand.create(labels={"watch": "not me"})
        task = hand.create(labels={"watch": "me"})
        created = _next_task(stream)
        assert (created["task"]["task_id"], state(created["task"])) == (task["task_id"], "PENDING")
    for lease in _all_of(hand, 2):
        hand.succeed(lease)
    with rest.open("POST", "/v1/tasks:watch", wanted | {"resume_token": created["resume_token"]}) as stream:
        states = []
        while "SUCCEEDED" not in states:
            event = _next_task(stream)
            assert event["task"]["task_id"] == task["task_id"]
            states.append(state(event["task"]))


def _next_task(stream: Any) -> Any:
    while line := stream.readline():
        event = json.loads(line)
        if "task" in event:
            return event
    raise AssertionError("the stream ended")


# --- Dead letters ----------------------------------------------------------------------------------


def test_a_dead_letter_is_redriven(rest: Any, hand: Any, becomes: Any) -> None:
    task = hand.create(max_attempts=1, payload={"n": 1}, labels={"a": "b"})
    open_ = rest("POST", f"/v1/tasks/{task['task_id']}:redrive")
    assert (open_.status, open_.reason) == (400, "TASK_NOT_REDRIVABLE")
    hand.fail(hand.take())
    becomes(task, "FAILED")
    new = rest("POST", f"/v1/tasks/{task['task_id']}:redrive").json
    assert new["task_id"] != task["task_id"]
    assert (new["redriven_from"], new["payload"], new["labels"]) == (task["task_id"], {"n": 1}, {"a": "b"})
    assert rest("POST", f"/v1/tasks/{task['task_id']}:redrive").json["task_id"] == new["task_id"]
    old = hand.read(task)
    assert (state(old), old["redriven_to"]) == ("FAILED", new["task_id"])
    lease = hand.take()
    assert lease["task"]["task_id"] == new["task_id"]
    hand.succeed(lease)


def test_dead_letters_are_redriven_and_deleted_by_a_filter(rest: Any, hand: Any, becomes: Any) -> None:
    tasks = [hand.create(max_attempts=1) for _ in range(3)]
    for lease in _all_of(hand, 3):
        hand.fail(lease)
    for task in tasks:
        becomes(task, "FAILED")
    wanted = {"filter": {"queue": hand.queue}}
    answer = rest("POST", "/v1/tasks:redrive", wanted | {"max_tasks": 2}).json
    assert answer["redriven_count"] == "2"
    answer = rest("POST", "/v1/tasks:redrive", wanted).json
    assert (answer["redriven_count"], answer["complete"]) == ("1", True)
    redriven = {hand.read(lease["task"])["redriven_from"] for lease in _all_of(hand, 3)}
    assert redriven == {task["task_id"] for task in tasks}
    failed = {"filter": {"queue": hand.queue, "states": ["TASK_STATE_FAILED"]}}
    answer = rest("POST", "/v1/tasks:delete", failed).json
    assert (answer["deleted_count"], answer["complete"]) == ("3", True)
    assert rest("GET", f"/v1/tasks/{tasks[0]['task_id']}").status == 404
