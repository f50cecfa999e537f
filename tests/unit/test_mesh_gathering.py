"""When a stage waits for company."""

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
        gathering.came()
    clock.now += 0.06
    gathering.came()
    return gathering.pause()


def test_at_rest_nothing_waits() -> None:
    clock = Clock()
    gathering = Gathering(clock)
    gathering.came()
    assert gathering.pause() == 0
    assert paused(clock, gathering, 50) == 0


def test_many_callers_wait_for_each_other() -> None:
    clock = Clock()
    gathering = Gathering(clock)
    assert paused(clock, gathering, 400) == MOST_SECONDS
    # It stays so until it was looked at for long enough.
    gathering.came()
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
    gathering.came()
    assert gathering.pause() == 0
