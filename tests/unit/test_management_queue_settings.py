"""What queues are set to: stored and read again, and the book that is kept of it."""

from collections.abc import Sequence

import pytest

from meshq.management.conversion.queue_settings import decoded_settings, encoded_settings
from meshq.management.model.queues import (
    UNSET,
    Hold,
    Limits,
    QueueSettings,
    Rate,
    RetryPolicy,
    TaskDefaults,
)
from meshq.management.queues.book import QueueBook
from meshq.management.queues.store import QueueChange

FULL = QueueSettings(
    defaults=TaskDefaults(
        priority=0,
        max_attempts=7,
        retry=RetryPolicy(0, 1.5, 9_000, 0.0, ("A", "B")),
        schedule_to_start_ms=1,
        start_to_close_ms=2_500,
        schedule_to_close_ms=3,
        heartbeat_ms=100,
    ),
    type_defaults={"t": TaskDefaults(priority=9), "u": TaskDefaults(max_attempts=1)},
    limits=Limits(5, 2, Rate(10, 60_000, 20), Rate(1, 10, 1)),
    retention_days=30,
    poison_limit=9,
    max_open_tasks=1_000,
    pause=Hold("ann", "lunch", 1_700_000_000_123),
    drain=Hold("", "", 5),
    resumed=Hold("eve", "it is back", 7),
)


@pytest.mark.parametrize(
    "settings",
    [UNSET, FULL, QueueSettings(limits=Limits(rate=Rate(3, 1_000, 3))), QueueSettings(pause=FULL.pause)],
)
def test_settings_are_read_as_they_were_stored(settings: QueueSettings) -> None:
    assert decoded_settings(encoded_settings(settings)) == settings


class Changes:
    """A store of changes."""

    def __init__(self) -> None:
        self.made: list[QueueChange] = []

    async def changes(self, after: int, limit: int) -> list[QueueChange]:
        return [change for change in self.made if change.settings.version > after][:limit]

    def set(self, name: str, settings: QueueSettings, *, deleted: bool = False) -> None:
        version = 1 + max((change.settings.version for change in self.made), default=0)
        self.made = [change for change in self.made if change.name != name]
        settings = settings._replace(version=version)
        self.made.append(QueueChange("default", name, settings, configured=True, deleted=deleted))


async def test_the_book_follows_changes_and_says_what_they_led_to() -> None:
    store = Changes()
    book = QueueBook(store)
    heard: list[str] = []

    def listen(changed: Sequence[QueueChange]) -> None:
        heard.extend(f"{change.name} {change.settings.version} {change.deleted}" for change in changed)

    book.on_changed(listen)
    store.set("a", FULL)
    store.set("b", QueueSettings(max_open_tasks=1))
    await book.refresh()
    assert book.settings("default", "a") == FULL._replace(version=1)
    assert book.settings("default", "c") is UNSET
    assert book.bounded == {("default", "a"), ("default", "b")}
    store.set("a", UNSET, deleted=True)
    await book.refresh()
    await book.refresh()
    assert book.settings("default", "a") is UNSET
    assert book.bounded == {("default", "b")}
    assert heard == ["a 1 False", "b 2 False", "a 3 True"]
    assert [change.name for change in book.behind(0)] == ["b", "a"]
    assert [change.name for change in book.behind(2)] == ["a"]
    assert book.version == 3


async def test_the_book_reads_more_changes_than_a_page_holds() -> None:
    store = Changes()
    for number in range(1_001):
        store.set(f"q{number}", UNSET)
    book = QueueBook(store)
    await book.refresh()
    assert book.version == 1_001
