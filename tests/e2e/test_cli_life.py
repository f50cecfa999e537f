"""The command line on the real system: tasks, dead letters and queues, with a worker by hand."""

from __future__ import annotations

import datetime as dt
import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fixtures.command_line import Inside, Server, lines

from meshq.local.system import System


@pytest.fixture(scope="module")
def inside(system: System) -> Inside:
    """The command line in this process, at the edge; its scripted server is not asked."""
    return Inside(Server(), int(system.edge.rpartition(":")[2]))


@contextmanager
def following(inside: Inside, *words: str) -> Iterator[Iterator[Any]]:
    """What a watch tells, until it is interrupted."""
    with inside.start(*words, "--json", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield map(json.loads, process.stdout)
        finally:
            process.send_signal(signal.SIGINT)
    assert process.returncode == 130


def create(inside: Inside, hand: Any, *words: str) -> str:
    return inside("task", "create", hand.task_type, "--queue", hand.queue, *words).stdout.strip()


def shape(inside: Inside, *words: str) -> Any:
    return json.loads(inside(*words, "--json").stdout)


# Tasks


def test_a_task_is_changed_as_long_as_nobody_has_it(inside: Inside, hand: Any) -> None:
    task_id = create(inside, hand, "old", "--in", "1h")
    change = ['{"new": true}', "--priority", "7", "--in", "0", "--label", "a=b"]
    assert "is changed" in inside("task", "update", task_id, *change).stdout
    task = hand.take()["task"]
    assert (task["task_id"], task["payload"], task["priority"]) == (task_id, {"new": True}, 7)
    assert "meshq task cancel" in inside("task", "update", task_id, "--priority", "1", code=5).stderr
    assert inside("task", "count", "--queue", hand.queue, "--label", "a=b").stdout == "1\n"
    assert inside("task", "count", "--queue", hand.queue, "--label", "a=c").stdout == "0\n"


def test_any_or_all_of_several_tasks_are_awaited(inside: Inside, hand: Any) -> None:
    ids = [create(inside, hand) for _ in range(2)]
    done = hand.take()
    hand.succeed(done)
    found = lines(inside("task", "wait", *ids, "--any", "--json").stdout)
    states = {item["task_id"]: item["state"] for item in found}
    assert states[done["task"]["task_id"]] == "SUCCEEDED"
    assert "1 of 2 tasks have not ended" in inside("task", "wait", *ids, "--timeout", "0.5", code=4).stderr
    hand.fail(hand.take(), non_retryable=True)
    assert inside("task", "wait", *ids, code=1).stdout.count("FAILED") == 1


def test_dead_letters_are_redriven_by_id_and_at_a_rate(inside: Inside, hand: Any) -> None:
    ids = [create(inside, hand, "--max-attempts", "1") for _ in range(3)]
    for _ in ids:
        hand.fail(hand.take())
    inside("task", "wait", *ids, code=1)
    new = inside("task", "redrive", ids[0]).stdout.strip()
    assert shape(inside, "task", "get", new)["redriven_from"] == ids[0]
    told = inside("task", "redrive", "--queue", hand.queue, "--rate", "4", code=2)
    assert "Redrive 3 tasks?" in told.stderr
    told = inside("task", "redrive", "--queue", hand.queue, "--rate", "4", "--yes")
    assert told.stdout == "2 tasks are redriven.\n"
    found = lines(inside("task", "list", "--queue", hand.queue, "--json").stdout)
    starts = [item["start_time"] or item["create_time"] for item in found if item["redriven_from"] in ids[1:]]
    one, other = map(dt.datetime.fromisoformat, starts)
    assert abs(other - one) >= dt.timedelta(seconds=0.2)
    told = inside("task", "delete", "--queue", hand.queue, "--state", "failed", "--yes")
    assert told.stdout == "3 tasks are deleted.\n"


def test_tasks_are_cancelled_by_a_filter(inside: Inside, hand: Any) -> None:
    red = [create(inside, hand, "--label", "colour=red") for _ in range(3)]
    blue = create(inside, hand, "--label", "colour=blue")
    wanted = ["--queue", hand.queue, "--label", "colour=red"]
    assert "Cancel 3 tasks?" in inside("task", "cancel", *wanted, code=2).stderr
    told = inside("task", "cancel", *wanted, "--reason", "no red", "--yes").stdout
    assert told == "3 tasks are cancelled or being cancelled.\n"
    found = lines(inside("task", "wait", *red, "--json", code=1).stdout)
    assert {(item["state"], item["cancel_reason"]) for item in found} == {("CANCELLED", "no red")}
    assert shape(inside, "task", "get", blue)["state"] == "PENDING"


def test_tasks_are_watched_by_a_filter(inside: Inside, hand: Any, rest: Any) -> None:
    with rest.open("POST", "/v1/tasks:watch", {"filter": {"queue": hand.queue}}) as stream:
        begin = json.loads(stream.readline())["resume_token"]
    task_id = create(inside, hand)
    with following(inside, "task", "watch", "--queue", hand.queue, "--resume", begin) as events:
        first = next(events)
        assert (first["task"]["task_id"], first["task"]["state"]) == (task_id, "PENDING")
        hand.succeed(hand.take())
        while next(events)["task"]["state"] != "SUCCEEDED":
            pass


# Queues


def test_a_queue_is_declared_stopped_cleared_and_deleted(inside: Inside, hand: Any) -> None:
    queue = hand.queue
    inside("queue", "create", queue, "--max-running", "5", "--retention", "1")
    assert "meshq queue set" in inside("queue", "create", queue, code=5).stderr
    inside("queue", "set", queue, "--max-running", "none", "--rate", "100/s")
    limits = shape(inside, "queue", "get", queue)["limits"]
    assert (limits["max_running"], limits["rate"]["units"]) == (None, 100)
    with following(inside, "queue", "watch", queue, "--interval", "500ms") as news:
        assert next(news)["queue"]["pause"] is None
        inside("queue", "pause", queue, "--reason", "lunch", "--actor", "ann")
        while not (pause := next(news)["queue"]["pause"]):
            pass
        assert (pause["actor"], pause["reason"]) == ("ann", "lunch")
        task_id = create(inside, hand)
        assert hand.poll(wait=0.3) == []
        assert "QUEUE_PAUSED" in inside("task", "get", task_id).stdout
        inside("queue", "drain", queue)
        assert "meshq queue resume" in inside("task", "create", "t", "--queue", queue, code=5).stderr
        inside("queue", "resume", queue, "--reason", "back", "--actor", "bob")
        found = shape(inside, "queue", "get", queue)
        assert (found["pause"], found["drain"], found["resumed"]["actor"]) == (None, None, "bob")
        assert "by bob" in inside("queue", "get", queue).stdout
        hand.succeed(hand.take())
        waiting = create(inside, hand)
        assert "meshq queue purge" in inside("queue", "delete", queue, code=5).stderr
        assert inside("queue", "purge", queue, "--yes").stdout.startswith("1 tasks of queue")
        inside("task", "wait", task_id, waiting, code=1)
        inside("queue", "delete", queue)
        while (last := next(news))["event"] != "deleted":
            pass
        assert last["queue"] == queue
    inside("queue", "get", queue, code=3)
