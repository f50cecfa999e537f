"""Which shards are asked for tasks, and in which order."""

from types import SimpleNamespace
from typing import Any

from meshq.execution.ring.doorbell import Doorbell
from meshq.execution.sessions.stock import NEGLECTED_SECONDS, SLOW_SECONDS, Stock


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def stock_of(clock: Clock, *names: str) -> Stock:
    shards: Any = SimpleNamespace(usable=lambda: [SimpleNamespace(name=name) for name in names])
    return Stock(["default/q/t"], shards, Doorbell(), lambda: None, clock)


def asked(stock: Stock) -> list[str]:
    return [shard.name for shard in stock.furthest_behind()]


def note(stock: Stock, shard: str, head: float | None) -> None:
    stock.note(shard, stock.rings(shard), head)


def test_shards_of_unknown_heads_and_the_oldest_ones_are_asked() -> None:
    stock = stock_of(Clock(), "a", "b", "c", "d")
    note(stock, "a", 5_000)
    note(stock, "b", 1_500)
    note(stock, "c", 1_000)
    assert asked(stock) == ["d", "c", "b"]
    note(stock, "d", None)
    assert asked(stock) == ["c", "b"]


def test_a_shard_with_tasks_is_not_neglected_for_older_backlogs_elsewhere() -> None:
    clock = Clock()
    stock = stock_of(clock, "old", "new", "empty")
    note(stock, "new", 90_000)
    note(stock, "empty", None)
    note(stock, "old", 1_000)
    assert asked(stock) == ["old"]
    clock.now += NEGLECTED_SECONDS * 1.5
    note(stock, "old", 1_000)
    assert asked(stock) == ["new", "old"]
    note(stock, "new", 90_000)
    assert asked(stock) == ["old"]


def test_a_slow_shard_gets_its_part_of_the_room_and_nobody_waits_for_it() -> None:
    clock = Clock()
    stock = stock_of(clock, "quick", "new", "slow")
    for name, head, seconds in (("quick", 5_000.0, 0.0), ("new", 90_000.0, 0.0), ("slow", 1_000.0, 2.0)):
        rings = stock.ask(name)
        clock.now += seconds
        stock.note(name, rings, head)
    note(stock, "quick", 5_000)
    note(stock, "new", 90_000)
    # Its tasks are the oldest by far, and still most of the room is for the others.
    assert shares(stock, 9) == {"slow": 3, "quick": 6}
    assert shares(stock, 1) == {"slow": 1}
    rings = stock.ask("slow")
    assert shares(stock, 9) == {"quick": 9}
    clock.now += SLOW_SECONDS / 2
    stock.note("slow", rings, 1_000)
    note(stock, "quick", 5_000)
    note(stock, "new", 90_000)
    assert shares(stock, 9) == {"slow": 9}


def test_where_all_shards_are_slow_the_oldest_tasks_come_first() -> None:
    clock = Clock()
    stock = stock_of(clock, "old", "new")
    asked_at = {name: stock.ask(name) for name in ("old", "new")}
    clock.now += 2 * SLOW_SECONDS
    stock.note("old", asked_at["old"], 1_000)
    stock.note("new", asked_at["new"], 90_000)
    assert shares(stock, 4) == {"old": 4}


def shares(stock: Stock, wanted: int) -> dict[str, int]:
    return {shard.name: count for shard, count in stock.shares(wanted)}


def test_a_shard_that_is_about_to_get_something_is_asked_unless_it_is_anyway() -> None:
    stock = stock_of(Clock(), "empty", "behind")
    note(stock, "empty", None)
    note(stock, "behind", 1_000)
    stock.expect("empty")
    stock.expect("behind")
    assert asked(stock) == ["empty", "behind"]
    assert stock.rings("behind") == 0
    # A call that is under way has been made before the tasks were queued: what it finds is out of date.
    note(stock, "empty", None)
    rings = stock.ask("empty")
    stock.expect("empty")
    stock.note("empty", rings, None)
    rings = stock.ask("behind")
    stock.expect("behind")
    stock.note("behind", rings, None)
    assert asked(stock) == ["empty", "behind"]
