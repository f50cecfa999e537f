"""The loop that background services are, and the bounds of a stop."""

import asyncio

import pytest

from meshq.mesh.lifecycle import Repeater, StopSignals, backoff, cancelled, tick_before


async def test_repeater_runs_at_once_and_when_woken() -> None:
    runs: asyncio.Queue[int] = asyncio.Queue()
    count = 0

    async def run_once() -> None:
        nonlocal count
        count += 1
        runs.put_nowait(count)

    repeater = Repeater("test", run_once, interval=3600)
    await repeater.start()
    await repeater.start()
    assert await asyncio.wait_for(runs.get(), 1) == 1
    repeater.wake()
    repeater.wake()
    assert await asyncio.wait_for(runs.get(), 1) == 2
    await repeater.stop()
    await repeater.stop()
    assert runs.empty()


async def test_repeater_goes_on_after_an_error(caplog: pytest.LogCaptureFixture) -> None:
    done = asyncio.Event()
    runs = 0

    async def run_once() -> float:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise ValueError("once")
        done.set()
        return 3600

    repeater = Repeater("test", run_once, interval=3600)
    await repeater.start()
    async with asyncio.timeout(5):
        await done.wait()
    await repeater.stop()


async def test_wake_during_a_run_means_another_run() -> None:
    entered, leave, runs = asyncio.Event(), asyncio.Event(), 0

    async def run_once() -> None:
        nonlocal runs
        runs += 1
        entered.set()
        await leave.wait()

    repeater = Repeater("test", run_once, interval=3600)
    await repeater.start()
    await entered.wait()
    entered.clear()
    repeater.wake()
    leave.set()
    async with asyncio.timeout(1):
        await entered.wait()
    await repeater.stop()
    assert runs == 2


@pytest.mark.parametrize("now", [7.0, 7.3, 7.64, 1e6 / 3])
@pytest.mark.parametrize("seconds", [1.0, 1.7, 3.0, 60.0])
def test_pauses_are_never_longer_and_hardly_a_second_shorter(now: float, seconds: float) -> None:
    end = tick_before(now, seconds, 0.64)
    assert now + seconds - 1 < end <= now + seconds
    assert end > now


def test_pauses_end_together() -> None:
    ends = [tick_before(now, 1.0, 0.25) for now in (7.3, 7.7, 8.2)]
    assert ends == pytest.approx([8.25] * 3, abs=0.003)


@pytest.mark.parametrize("seconds", [1.0, 2.0, 10.0])
def test_a_usual_pause_stays_as_long_as_it_is(seconds: float) -> None:
    woken = tick_before(7.3, 3.0, 0.25)
    for late in (-0.001, 0.0, 0.004):  # timers fire a little early, and runs take a little
        assert tick_before(woken + late, seconds, 0.25) - woken == pytest.approx(seconds, abs=0.003)


def test_a_short_pause_is_left_alone() -> None:
    assert tick_before(7.3, 0.9, 0.25) == pytest.approx(8.2)


def test_backoff_grows_to_its_bound() -> None:
    assert backoff(1) < backoff(4) < backoff(40) <= 12


async def test_bounded_work_ends_with_its_time() -> None:
    signals = StopSignals()
    assert await signals.bounded(asyncio.sleep(0), 5)
    assert not await signals.bounded(asyncio.sleep(60), 0.01)


async def test_second_signal_hastens() -> None:
    signals = StopSignals()
    signals._received()
    assert signals.stop.is_set()
    assert not signals.hurry.is_set()
    waiting = asyncio.create_task(signals.bounded(asyncio.sleep(60), 60, hurried_seconds=0))
    await asyncio.sleep(0)
    signals._received()
    assert not await asyncio.wait_for(waiting, 1)
    # What is short still gets done.
    assert await signals.bounded(asyncio.sleep(0), 5)


async def test_errors_of_bounded_work_reach_the_caller() -> None:
    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await StopSignals().bounded(fail(), 5)


async def test_a_task_that_swallows_its_cancellation_is_cancelled_again() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if swallowed:
                    raise
                swallowed += 1

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await cancelled(task)
    assert swallowed == 1
    assert task.cancelled()
