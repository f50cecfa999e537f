"""Queues on the command line, against a gRPC server whose answers the tests write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
from fixtures.command_line import Meshq, inside, lines

from meshq.contract import errors
from meshq.v1 import queue_service_pb2

__all__ = ["inside"]


QUEUE = queue_service_pb2.Queue(queue="q", complete=True, retention_days=7)
QUEUE.type_defaults["t"].priority = 3
QUEUE.limits.max_running = 10
QUEUE.limits.rate.units = 5
QUEUE.limits.rate.period.FromSeconds(60)
QUEUE.pause.actor, QUEUE.pause.reason = "eva@host", "the provider is down"
QUEUE.resumed.actor, QUEUE.resumed.reason = "bob@host", "it is back"


def queue_answers(inside: Meshq) -> None:
    for name in ("Get", "Create", "Update", "Delete", "Pause", "Drain", "Resume"):
        inside.server.answers[f"{name}Queue"] = lambda _: QUEUE


def test_a_queue_says_who_stopped_it(inside: Meshq) -> None:
    queue_answers(inside)
    text = inside("queue", "get", "q").stdout
    for part in (
        "by eva@host, the provider is down",
        "by bob@host, it is back",
        "10 at workers, 5 starts in 1 min 0 s",
        "defaults of t",
        "priority 3",
        "7 days",
    ):
        assert part in text
    (shape,) = lines(inside("queue", "get", "q", "--json").stdout)
    assert shape["pause"]["actor"] == "eva@host"
    assert shape["limits"]["rate"] == {"units": 5, "period": 60.0, "burst": None}


def test_queues_are_set(inside: Meshq) -> None:
    queue_answers(inside)
    settings = ["--max-running", "20", "--rate", "100/s", "--burst", "200", "--max-open-tasks", "none"]
    defaults = ["--max-attempts", "5", "--retry-delay", "2s", "--heartbeat-timeout", "none"]
    assert (
        inside("queue", "set", "q", *settings, *defaults, "--retention", "30d").stdout == "Queue q is set.\n"
    )
    request = inside.server.requests[-1]
    assert list(request.update_mask.paths) == [
        *("defaults.heartbeat_timeout", "defaults.max_attempts", "defaults.retry_policy"),
        *("limits.max_running", "limits.rate", "max_open_tasks", "retention_days"),
    ]
    queue = request.queue
    assert (queue.limits.max_running, queue.limits.rate.units, queue.limits.rate.burst) == (20, 100, 200)
    assert (queue.defaults.max_attempts, queue.max_open_tasks, queue.retention_days) == (5, 0, 30)
    assert not queue.defaults.HasField("heartbeat_timeout")
    inside("queue", "create", "q", "--max-running-per-key", "2", "--type", "u", "--priority", "9")
    request = inside.server.requests[-1]
    assert request.queue.limits.max_running_per_key == 2
    assert request.queue.type_defaults["u"].priority == 9


def test_defaults_of_a_type_join_the_others(inside: Meshq) -> None:
    queue_answers(inside)
    inside("queue", "set", "q", "--type", "u", "--max-attempts", "1")
    request = inside.server.requests[-1]
    assert list(request.update_mask.paths) == ["type_defaults"]
    assert {name: item.priority for name, item in request.queue.type_defaults.items()} == {"t": 3, "u": 0}
    inside("queue", "set", "q", "--create", "--type", "u", "--max-attempts", "1")
    assert len(inside.server.requests[-1].queue.type_defaults) == 2
    inside("queue", "set", "q", "--type", "t", "--priority", "none")
    assert not inside.server.requests[-1].queue.type_defaults


def test_defaults_of_a_type_may_declare_their_queue(inside: Meshq) -> None:
    queue_answers(inside)
    inside.server.answers["GetQueue"] = lambda _: errors.NotFound("none", errors.Reason.QUEUE_NOT_FOUND)
    inside("queue", "set", "q", "--type", "u", "--max-attempts", "1", code=3)
    inside("queue", "set", "q", "--type", "u", "--max-attempts", "1", "--create")
    assert inside.server.requests[-1].allow_missing


def test_queues_are_stopped_and_go_on(inside: Meshq) -> None:
    queue_answers(inside)
    assert inside("queue", "pause", "q", "--reason", "deploy").stdout == "Queue q is paused.\n"
    request = inside.server.requests[-1]
    assert request.reason == "deploy"
    assert "@" in request.actor
    inside("queue", "drain", "q", "--actor", "me")
    assert inside.server.requests[-1].actor == "me"
    assert lines(inside("queue", "resume", "q", "--reason", "back", "--json").stdout)[0]["queue"] == "q"
    request = inside.server.requests[-1]
    assert (request.reason, "@" in request.actor) == ("back", True)
    assert inside("queue", "delete", "q").stdout == "Queue q is deleted.\n"


def test_purging_asks(inside: Meshq) -> None:
    queue_answers(inside)
    inside.server.answers["PurgeQueue"] = lambda _: queue_service_pb2.PurgeQueueResponse(
        cancelled_count=3, complete=True
    )
    assert "Cancel about 0 tasks that wait in queue q?" in inside("queue", "purge", "q", code=2).stderr
    run = inside("queue", "purge", "q", "--yes")
    assert run.stdout == "3 tasks of queue q are cancelled or being cancelled.\n"


def test_a_wrong_name_is_told_as_the_name(inside: Meshq) -> None:
    inside.server.answers["PauseQueue"] = lambda _: errors.InvalidRequest.field("queue", "must be short")
    assert "\n  NAME: must be short\n" in inside("queue", "pause", "q", code=2).stderr


def test_queues_are_watched(inside: Meshq) -> None:
    def news(_: grpc.ServicerContext) -> Iterator[Any]:
        yield queue_service_pb2.WatchQueuesResponse(queues=[QUEUE])
        yield queue_service_pb2.WatchQueuesResponse(deleted_queues=["q"])
        yield errors.InvalidRequest.field("interval", "must be short")

    inside.server.events = news
    run = inside("queue", "watch", "q", "--interval", "500ms", code=2)
    assert run.stdout.splitlines()[0].startswith("q: 0 pending, 0 running")
    assert run.stdout.splitlines()[0].endswith("paused")
    assert run.stdout.splitlines()[1] == "q: deleted"
    assert "--interval: must be short" in run.stderr
    assert inside.server.requests[-1].interval.ToMilliseconds() == 500
    shapes = lines(inside("queue", "watch", "--json", code=2).stdout)
    assert (shapes[0]["queue"]["queue"], shapes[1]) == ("q", {"event": "deleted", "queue": "q"})
