"""When a stage waits for company, and which stages do."""

import asyncio
from collections.abc import Sequence

import pytest
from fixtures.recording import PromptAttempts, Reports, ended

from meshq.execution.attempts.recorder import Recorder
from meshq.management.group import GroupWriter
from meshq.mesh.gathering import COMPANY, MOST_SECONDS, Gathering


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def paused(clock: Clock, gathering: Gathering, rate: float) -> float:
    """The pause after a while in which so many came each second."""
    for _ in range(int(rate / 5)):
        clock.now += 1 / rate
        gathering.came(1, others=True)
    clock.now += 0.06
    gathering.came(1, others=True)
    return gathering.pause()


def test_at_rest_nothing_waits() -> None:
    clock = Clock()
    gathering = Gathering(clock)
    gathering.came(1, others=True)
    assert gathering.pause() == 0
    assert paused(clock, gathering, 50) == 0


def test_many_callers_wait_for_each_other() -> None:
    clock = Clock()
    gathering = Gathering(clock)
    assert paused(clock, gathering, 400) == MOST_SECONDS
    # It stays so until it was looked at for long enough.
    gathering.came(1, others=True)
    assert gathering.pause() == MOST_SECONDS


def test_the_more_come_the_shorter_is_the_pause() -> None:
    clock = Clock()
    gathering = Gathering(clock)
    pause = paused(clock, gathering, 8_000)
    assert COMPANY / 8_000 <= pause < MOST_SECONDS


def test_it_ends_as_soon_as_few_come() -> None:
    clock = Clock()
    gathering = Gathering(clock)
    assert paused(clock, gathering, 1_000) > 0
    clock.now += 1.0
    gathering.came(1, others=True)
    assert gathering.pause() == 0


def test_who_calls_alone_waits_for_nobody() -> None:
    clock = Clock()
    gathering = Gathering(clock)
    for _ in range(500):
        clock.now += 0.002
        gathering.came(1, others=False)
        assert gathering.pause() == 0


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether there was other work, each time that something came."""
    found: list[bool] = []

    counted = Gathering.came

    def came(self: Gathering, items: int, *, others: bool) -> None:
        before = self._count
        counted(self, items, others=others)
        found.append(self._count > before)

    monkeypatch.setattr(Gathering, "came", came)
    return found


async def test_submissions_have_company_where_others_are_there_or_they_are_many(told: list[bool]) -> None:
    async def write(group: Sequence[int]) -> Sequence[int]:
        return group

    writer = GroupWriter("test", write, lanes=2)
    await writer.start()
    for number in range(3):
        await writer.submit(number, 1, 1)
    assert told == [False] * 3
    await asyncio.gather(*(writer.submit(number, 1, 1) for number in range(3)))
    assert told[3:] == [False, True, True]
    await writer.submit(7, 2, 1)
    assert told[6:] == [True]
    await writer.stop()


async def test_a_submission_beside_a_group_that_is_written_has_company(told: list[bool]) -> None:
    writing, written = asyncio.Event(), asyncio.Event()

    async def write(group: Sequence[int]) -> Sequence[int]:
        writing.set()
        await written.wait()
        return group

    writer = GroupWriter("test", write, lanes=2)
    await writer.start()
    first = writer.submit(1, 1, 1)
    await writing.wait()
    second = writer.submit(2, 1, 1)
    written.set()
    assert (await first, await second) == (1, 2)
    assert told == [False, True]
    await writer.submit(3, 1, 1)
    assert told[2:] == [False]
    await writer.stop()


async def test_results_have_company_where_others_are_there_or_they_are_many(told: list[bool]) -> None:
    recorder = Recorder(PromptAttempts(), Reports(), lambda item: item)
    await recorder.start()
    for number in range(3):
        await recorder.record([ended(number)])
    assert told == [False] * 3
    await asyncio.gather(*(recorder.record([ended(number)]) for number in range(3, 6)))
    assert told[3:] == [False, True, True]
    await recorder.record([ended(6), ended(7)])
    assert told[6:] == [True]
    await recorder.stop()
