"""The ledger's time does not jump with the clock of one process."""

from meshq.contract.errors import Unavailable
from meshq.management.clock import LedgerClock


class Clocks:
    """All that can be wrong: monotonic time, the process's time of day, and the database's."""

    def __init__(self) -> None:
        self.steady, self.own, self.database_ms = 100.0, 5_000.0, 9_000_000
        self.away = False

    async def ask(self) -> int:
        if self.away:
            raise Unavailable("It is away.")
        return self.database_ms

    def clock(self) -> LedgerClock:
        return LedgerClock(self.ask, steady=lambda: self.steady, own=lambda: self.own)


async def test_it_goes_by_the_database_and_not_by_the_clock_of_the_process() -> None:
    clocks = Clocks()
    clock = clocks.clock()
    assert clock() == 5_000_000
    await clock.run_once()
    assert clock() == 9_000_000
    clocks.own += 3_600
    clocks.steady += 2
    assert clock() == 9_002_000


async def test_it_goes_on_while_the_database_is_away() -> None:
    clocks = Clocks()
    clock = clocks.clock()
    await clock.run_once()
    clocks.away = True
    clocks.steady += 5
    await clock.run_once()
    assert clock() == 9_005_000


async def test_it_follows_the_database() -> None:
    clocks = Clocks()
    clock = clocks.clock()
    await clock.run_once()
    clocks.database_ms -= 60_000
    await clock.run_once()
    assert clock() == 8_940_000
