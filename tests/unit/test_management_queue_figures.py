"""Figures of queues: how open tasks add up, and what a watcher is told."""

from typing import Any

import pytest

from meshq.management.model.placement import Depth
from meshq.management.model.queues import UNSET
from meshq.management.queues.figures import Live, QueueView, view
from meshq.management.queues.store import Held, QueueRow
from meshq.management.queues.watch import Seen, difference


def row(name: str = "q", **figures: Any) -> QueueRow:
    none = dict.fromkeys(("created", "succeeded", "failed", "cancelled", "expired"), 0)
    rates = {"arrival_rate": 0.0, "completion_rate": 0.0}
    return QueueRow("default", name, 0, UNSET, **{**none, **rates, **figures})


@pytest.mark.parametrize(
    ("created", "held", "depth", "shown"),
    [
        (10, Held(1, 2), Depth(ready=3, delayed=1, leased=3), (1, 3, 3, 3)),
        # Four are on their way to a shard.
        (10, Held(0, 0), Depth(ready=1, leased=5), (0, 0, 5, 5)),
        # Three have just ended, and their shards do not know it yet.
        (2, Held(0, 0), Depth(ready=0, leased=5), (0, 0, 0, 2)),
        (2, Held(4, 1), Depth(delayed=3), (0, 2, 0, 0)),
        (0, Held(1, 1), Depth(1, 1, 1), (0, 0, 0, 0)),
    ],
)
def test_open_tasks_add_up(created: int, held: Held, depth: Depth, shown: tuple[int, ...]) -> None:
    found = view(row(created=created), Live(held, depth, complete=True))
    assert (found.waiting, found.scheduled, found.pending, found.running) == shown
    assert sum(shown) == found.row.open


def test_with_a_silent_shard_only_what_is_known_is_shown() -> None:
    found = view(row(created=10, succeeded=1), Live(Held(1, 1), Depth(1, 1, 1), complete=False))
    assert (found.waiting, found.scheduled, found.pending, found.running) == (1, 2, 1, 1)
    assert not found.complete


def shown(name: str, **figures: Any) -> QueueView:
    return view(row(name, **figures), Live(Held(0, 0), Depth(), complete=True))


def seen(*views: QueueView, last: str = "") -> Seen:
    return Seen({item.row.name: item for item in views}, last)


def test_a_watcher_is_told_once_what_has_changed() -> None:
    known: dict[str, QueueView] = {}
    everything = frozenset[str]()
    one, two = shown("a", created=1), shown("b")
    assert difference(known, seen(one, two), everything) == ([one, two], [])
    assert difference(known, seen(one, two), everything) == ([], [])
    more = shown("b", created=5)
    assert difference(known, seen(one, more), everything) == ([more], [])
    assert difference(known, seen(more), everything) == ([], ["a"])
    assert difference(known, seen(one, more), everything) == ([one], [])


def test_a_rate_that_falls_by_nothing_worth_mentioning_is_no_change() -> None:
    known: dict[str, QueueView] = {}
    everything = frozenset[str]()
    difference(known, seen(shown("a", arrival_rate=0.031)), everything)
    assert difference(known, seen(shown("a", arrival_rate=0.029)), everything) == ([], [])
    # What is told is compared with what was told, so that many small steps are noticed.
    (changed,) = difference(known, seen(shown("a", arrival_rate=0.02)), everything).changed
    assert changed.row.arrival_rate == 0.02


def test_of_names_only_these_are_shown() -> None:
    known: dict[str, QueueView] = {}
    names = frozenset({"b", "none"})
    one, two = shown("a"), shown("b")
    assert difference(known, seen(one, two), names) == ([two], [])
    assert difference(known, seen(one), names) == ([], ["b"])


def test_a_queue_that_others_push_out_of_sight_is_not_deleted() -> None:
    known: dict[str, QueueView] = {}
    everything = frozenset[str]()
    one, two, new = shown("a"), shown("c"), shown("b")
    difference(known, seen(one, two, last="c"), everything)
    assert difference(known, seen(one, new, last="b"), everything) == ([new], [])
    assert difference(known, seen(new, two, last="c"), everything) == ([two], ["a"])
