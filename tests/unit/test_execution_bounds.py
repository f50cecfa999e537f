"""What waits in an execution instance takes a bounded amount of memory, whoever is slow or away."""

import asyncio
from collections.abc import Sequence
from itertools import count

import pytest
from fixtures.recording import PromptAttempts, Reports, ended

from meshq.contract.errors import Unavailable
from meshq.contract.limits import MAX_CHECKPOINT_BYTES, MAX_FRAME_BYTES
from meshq.execution.attempts.checkpoints import Checkpoints
from meshq.execution.attempts.recorder import Recorder
from meshq.execution.attempts.reporter import Reporter
from meshq.execution.model import Checkpoint, Directive, Ended, Status
from meshq.execution.news import Listener, ProgressBoard
from meshq.execution.ring.doorbell import Doorbell
from meshq.execution.ring.shards import Shards
from meshq.execution.ring.tombstones import light, tombstone
from meshq.execution.sessions.session import Session, WorkerFacts
from meshq.internal.v1.progress_service_pb2 import TaskNews
from meshq.v1.task_pb2 import TaskOutput, TaskProgress

MIB = 1 << 20


class AwayLedger:
    """Notes what it is told, and never answers."""

    def __init__(self) -> None:
        self.told: list[Ended] = []

    async def report(self, reports: Sequence[Ended]) -> list[Directive]:
        self.told += reports
        raise Unavailable("It is away.")


class Forgetter:
    """Forgets nothing."""

    async def delete(self, task_ids: Sequence[bytes]) -> None:
        """Nothing is to be forgotten here."""


class SlowAttempts(PromptAttempts):
    """A database that answers when it is told to."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()

    async def insert(self, rows: Sequence[Ended]) -> int:
        await self.answers.wait()
        return await super().insert(rows)


class AwayStore:
    """A database that is away."""

    async def store(self, checkpoints: Sequence[Checkpoint]) -> None:
        raise Unavailable("It is away.")

    async def load(self, task_ids: Sequence[bytes]) -> dict[bytes, bytes]:
        return {}


async def test_reports_that_wait_hold_no_large_results() -> None:
    ledger = AwayLedger()
    reporter = Reporter(ledger, Shards("e", Doorbell()), Forgetter())
    reporter.add(ended(1, success=b"s" * MIB))
    reporter.add(ended(2, error=b"e" * MIB))
    await reporter.start()
    try:
        while not ledger.told:  # noqa: ASYNC110 - the ledger has nothing to wait for
            await asyncio.sleep(0)
    finally:
        await reporter.stop()
    assert [len(item.success or item.error or b"") < 1_000 for item in ledger.told] == [True, True]


def test_a_light_end_leaves_the_same_tombstone() -> None:
    for size in (0, 1, 256, 257, MIB):
        for item in (ended(1, success=b"x" * size), ended(1, error=b"x" * size)):
            assert tombstone(light(item)) == tombstone(item)


@pytest.mark.parametrize(("batches", "size", "in_a_batch"), [(200, MIB, 1), (60, 0, 1_000)])
async def test_results_that_too_many_others_wait_before_are_to_come_later(
    batches: int, size: int, in_a_batch: int
) -> None:
    attempts = SlowAttempts()
    recorder = Recorder(attempts, Reports(), lambda item: item)
    content = b"s" * size
    numbers = count(1)
    answers: list[Status] = []
    await recorder.start()
    for _ in range(batches):
        rows = [ended(next(numbers), success=content) for _ in range(in_a_batch)]
        recorder.submit(rows, answers.extend)
    later = answers.count(Status.TRY_LATER)
    assert later == len(answers) > 0
    attempts.answers.set()
    while len(answers) < batches * in_a_batch:  # noqa: ASYNC110 - it is a matter of turns of the loop
        await asyncio.sleep(0)
    await recorder.stop()
    assert answers.count(Status.ACCEPTED) == batches * in_a_batch - later > 0


async def test_checkpoints_that_wait_for_the_database_are_bounded() -> None:
    checkpoints = Checkpoints(AwayStore())
    content = b"c" * MAX_CHECKPOINT_BYTES
    task_ids = [number.to_bytes(16) for number in range(2_000)]
    for task_id in task_ids:
        checkpoints.take(Checkpoint(task_id, 1, 1, content))
    # The later word of a task takes the place of its first.
    checkpoints.take(Checkpoint(task_ids[0], 2, 2, b"later"))
    found = await checkpoints.of(task_ids)
    assert found[task_ids[0]] == b"later"
    assert 0 < sum(map(len, found.values())) <= 64 * MIB
    # What has ended makes room.
    await checkpoints.settle([ended(number, success=b"") for number in range(1_000)])
    checkpoints.take(Checkpoint(task_ids[-1], 1, 1, content))
    assert (await checkpoints.of(task_ids))[task_ids[-1]] == content


async def test_news_that_nobody_reads_are_bounded() -> None:
    listener = Listener()
    news = TaskNews(output=TaskOutput(chunk=b"o" * (64 << 10)))
    for _ in range(2_000):
        listener.put(news, news.ByteSize())
    assert 0 < len(await listener.next(0)) * news.ByteSize() <= MAX_FRAME_BYTES
    listener.put(news, news.ByteSize())
    assert await listener.next(0) == [news]


def test_the_latest_progress_is_kept_of_as_many_tasks_as_there_is_room_for() -> None:
    board = ProgressBoard()
    progress = TaskProgress(attempt=1, message="m" * (16 << 10))
    task_ids = [number.to_bytes(16) for number in range(4_000)]
    for task_id in task_ids * 2:
        board.note(task_id, progress)
    kept = [task_id for task_id in task_ids if board.of(task_id) is not None]
    assert kept == task_ids[-len(kept) :]
    assert 0 < len(kept) * progress.ByteSize() <= 32 * MIB
    board.forget(task_ids)
    board.note(task_ids[0], progress)
    assert board.of(task_ids[0]) == progress


async def test_a_worker_that_does_not_read_is_not_listened_to() -> None:
    session = Session("e/1", WorkerFacts("w", "default", ("t",), ("q",)))
    frame = b"f" * MIB
    sent = 0
    while not session.unheeded:
        session.send(frame)
        sent += 1
    assert sent < 100
    waiting = asyncio.ensure_future(session.heeded())
    frames = session.frames()
    assert await anext(frames) == frame
    await asyncio.wait_for(waiting, 30)
    session.send(frame)
    waiting = asyncio.ensure_future(session.heeded())
    session.close()
    await asyncio.wait_for(waiting, 30)
