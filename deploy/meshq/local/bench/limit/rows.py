"""Plain tasks as each store gets to see them, from their creation to their end."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from meshq.bench.load import FRAME, PAYLOAD, TYPE
from meshq.execution.conversion.dispatch import queue_items
from meshq.execution.model import Ended, Lease, Outcome, QueueItem
from meshq.execution.ring.hashring import Ring, key_of_id
from meshq.execution.ring.shard import Applied
from meshq.execution.ring.tombstones import tombstone
from meshq.management.conversion.dispatch import dispatch_frame
from meshq.management.conversion.tasks import Content, accept_content, new_task
from meshq.management.model.claims import (
    Answer,
    Claim,
    ClaimKind,
    Submission,
    claim_name,
    encoded_answers,
    fingerprint,
)
from meshq.management.model.reports import Finish, Report, certain_finish
from meshq.management.model.task import NewTask, sendable
from meshq.v1.task_pb2 import Task
from meshq.v1.worker_service_pb2 import Success

TENANT = "default"
WORKER = "bench-worker-1"
EPOCH = 1


@dataclass(frozen=True, slots=True)
class Part:
    """The tasks of a frame that belong to one shard, in the order in which it leases them."""

    items: list[QueueItem]
    leases: list[Lease]
    directives: list[Applied]


@dataclass(frozen=True, slots=True)
class Frame:
    """Many plain tasks that go the whole way together.

    Attributes:
        submission: As management stores them.
        parts: As the shards keep them, by the shard's name.
        ended: The ends of their attempts, as execution records them.
        finishes: Their ends, as management writes them.
        now_ms: When.
    """

    submission: Submission
    parts: Mapping[str, Part]
    ended: list[Ended]
    finishes: list[Finish]
    now_ms: int


def make_frames(count: int, ring: Ring, now_ms: int, size: int = FRAME) -> Iterator[Frame]:
    """Frames with the leases that a shard makes which gets and leases them in this order, and nothing else.

    Each frame is ready a millisecond after the one before, and ids ascend, so that it is known which lease a
    task gets.
    """
    numbers = dict.fromkeys((shard.name for shard in ring.shards), 0)
    message, content = _task()
    for index in range(count):
        begin_ms = now_ms - count + index
        tasks = [new_task(message, content, TENANT)._replace(ready_ms=begin_ms) for _ in range(size)]
        yield _frame(tasks, ring, numbers, begin_ms)


def _frame(tasks: list[NewTask], ring: Ring, numbers: dict[str, int], now_ms: int) -> Frame:
    by_shard: dict[str, list[QueueItem]] = {}
    for item in queue_items(dispatch_frame(0, [sendable(task) for task in tasks])):
        by_shard.setdefault(ring.owner(key_of_id(item.task_id)) or "", []).append(item)
    parts: dict[str, Part] = {}
    all_ended: list[Ended] = []
    for name, items in by_shard.items():
        first = numbers[name] + 1
        numbers[name] += len(items)
        leases = [
            Lease(item.task_id, item.attempt, EPOCH, number, name, TENANT, now_ms)
            for number, item in enumerate(items, first)
        ]
        ended = [_ended(lease, now_ms) for lease in leases]
        parts[name] = Part(
            items, leases, [_done(lease, end) for lease, end in zip(leases, ended, strict=True)]
        )
        all_ended += ended
    finishes = [finish for end in all_ended if (finish := certain_finish(_report(end), now_ms))]
    return Frame(_submission(tasks), parts, all_ended, finishes, now_ms)


def _task() -> tuple[Task, Content]:
    message = Task(type=TYPE)
    message.payload.string_value = PAYLOAD
    return message, accept_content(message, "task")


def _submission(tasks: list[NewTask]) -> Submission:
    name = claim_name(ClaimKind.INGEST, TENANT, secrets.token_hex(16))
    answers = encoded_answers([Answer(task.task_id) for task in tasks])
    claim = Claim(name, fingerprint([task.spec for task in tasks[:1]]), answers, len(tasks))
    return Submission(tasks, claim, sum(len(task.spec) for task in tasks))


def _ended(lease: Lease, now_ms: int) -> Ended:
    return Ended(
        lease.task_id, lease.attempt, TENANT, Outcome.SUCCEEDED, lease.epoch, lease.number, WORKER,
        now_ms, now_ms, _SUCCESS, None, "", "", lease.shard,
    )  # fmt: skip


def _done(lease: Lease, ended: Ended) -> Applied:
    return Applied("done", lease.task_id, lease.attempt, lease.label, 0, 0, tombstone(ended))


def _report(ended: Ended) -> Report:
    return Report(
        ended.task_id, ended.attempt, ended.outcome, ended.start_ms, ended.end_ms, ended.worker_id, "", ""
    )


def _success() -> bytes:
    message = Success()
    message.result.struct_value["word_count"] = len(PAYLOAD.split())
    return message.SerializeToString()


_SUCCESS = _success()
