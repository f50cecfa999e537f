"""Queues in memory: group commit, the outbox, the bus, the commit log."""

import asyncio
from collections.abc import Sequence

import pytest

from meshq.contract.errors import Aborted, InternalError, MeshqError, Overloaded, Unavailable
from meshq.contract.limits import MAX_FRAME_ITEMS
from meshq.management.dispatch.outbox import Outbox
from meshq.management.group import GroupWriter
from meshq.management.model.states import State
from meshq.management.model.task import Sendable, TaskRow
from meshq.management.watch.bus import Bus, Gone, News, Over
from meshq.management.watch.commits import CommitLog

ID = bytes(range(16))
OTHER = bytes(16)


def item(number: int, size: int = 10) -> Sendable:
    return Sendable(number.to_bytes(16, "big"), 1, "default", "q", "t", 0, 0, "", False, bytes(size))


def row(task_id: bytes = ID, state: State = State.RUNNING) -> TaskRow:
    return TaskRow(task_id, "default", "q", "t", state, 1, 3, 0, None, None, None, None, None, None, None)


class Writing:
    """Records groups and answers when it is let go."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.go = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self, group: Sequence[int]) -> list[int | MeshqError]:
        self.groups.append(list(group))
        await self.go.wait()
        if self.error:
            raise self.error
        return [InternalError("bad") if number < 0 else number * 2 for number in group]


async def test_who_comes_while_others_are_written_shares_a_group() -> None:
    writing = Writing()
    writer = GroupWriter("test", writing, lanes=1, group_items=3)
    await writer.start()
    first = writer.submit(1, 1, 1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    later = [writer.submit(number, 1, 1) for number in (2, -3, 4, 5)]
    writing.go.set()
    assert await first == 2
    answers = await asyncio.gather(*later, return_exceptions=True)
    assert isinstance(answers[1], InternalError)
    assert [answers[0], *answers[2:]] == [4, 8, 10]
    assert writing.groups == [[1], [2, -3, 4], [5]]
    await writer.stop()


async def test_an_error_of_the_group_is_the_answer_to_all_and_the_writer_goes_on() -> None:
    writing = Writing()
    writing.go.set()
    writing.error = Unavailable("away")
    writer = GroupWriter("test", writing, lanes=2)
    await writer.start()
    with pytest.raises(Unavailable):
        await writer.submit(1, 1, 1)
    writing.error = None
    assert await writer.submit(1, 1, 1) == 2
    await writer.stop()
    await writer.stop()


async def test_a_full_queue_refuses_and_tells_when_there_is_room() -> None:
    writing = Writing()
    writer = GroupWriter("test", writing, lanes=1, group_items=1, queue_items=2)
    await writer.start()
    answers = [writer.submit(number, 1, 1) for number in (1, 2)]
    assert writer.full
    with pytest.raises(Overloaded) as caught:
        writer.submit(3, 1, 1)
    assert caught.value.retry_delay
    room = asyncio.create_task(writer.room())
    writing.go.set()
    await room
    assert await asyncio.gather(*answers) == [2, 4]
    await writer.stop()


async def test_a_caller_that_left_disturbs_nobody() -> None:
    writing = Writing()
    writer = GroupWriter("test", writing, lanes=1)
    await writer.start()
    gone = writer.submit(1, 1, 1)
    stays = writer.submit(2, 1, 1)
    gone.cancel()
    writing.go.set()
    assert await stays == 4
    await writer.stop()


async def test_a_stop_cancels_whoever_waits() -> None:
    writing = Writing()
    writer = GroupWriter("test", writing, lanes=1, group_items=1)
    await writer.start()
    answers = [writer.submit(number, 1, 1) for number in (1, 2)]
    await asyncio.sleep(0.01)
    await writer.stop()
    assert all(answer.cancelled() for answer in answers)


async def test_frames_are_bounded_by_count_and_bytes() -> None:
    outbox = Outbox()
    outbox.offer([item(n) for n in range(MAX_FRAME_ITEMS + 1)])
    assert len(await outbox.take()) == MAX_FRAME_ITEMS
    assert len(await outbox.take()) == 1
    outbox.offer([item(n, 700_000) for n in range(3)])
    assert [len(await outbox.take()) for _ in range(3)] == [1, 1, 1]


async def test_streams_take_turns() -> None:
    outbox = Outbox()
    first, second = (asyncio.create_task(outbox.take()) for _ in range(2))
    await asyncio.sleep(0)
    outbox.offer([item(1)])
    assert await first == [item(1)]
    assert not second.done()
    outbox.offer([item(2)])
    assert await second == [item(2)]


async def test_a_turn_of_a_stream_that_breaks_passes_on() -> None:
    outbox = Outbox()
    first, second = (asyncio.create_task(outbox.take()) for _ in range(2))
    await asyncio.sleep(0)
    outbox.offer([item(1)])
    first.cancel()
    assert await second == [item(1)]


async def test_what_does_not_fit_is_left() -> None:
    outbox = Outbox(max_items=2)
    outbox.offer([item(n) for n in range(5)])
    assert len(outbox) == 2
    assert outbox.half_full
    outbox.put_back([item(9)])
    assert await outbox.take() == [item(0), item(1)]
    outbox.put_back([item(7), item(8)])
    assert [(taken.task_id, taken.repeat) for taken in await outbox.take()] == [
        (item(7).task_id, True),
        (item(8).task_id, True),
    ]


async def test_events_reach_the_watchers_of_their_task_only() -> None:
    bus = Bus()
    with bus.subscribe(ID, news=True) as one, bus.subscribe(OTHER, news=True) as other:
        bus.publish_rows([row()])
        bus.publish_news([News(ID, "x", 1)])
        bus.publish_gone([OTHER])
        assert await one.next(0) == row()
        assert await one.next(0) == News(ID, "x", 1)
        assert await one.next(0) is None
        assert await other.next(0) == Gone(OTHER)
    assert not bus.busy
    bus.publish_rows([row()])


async def test_interest_is_told_when_it_begins_and_ends() -> None:
    bus = Bus()
    heard: list[str] = []
    bus.on_watched(lambda: heard.append(f"busy {bus.busy}"))
    bus.on_news_wanted(lambda task_id: heard.append(f"news {bus.wants_news(task_id)}"))
    with bus.subscribe(ID, news=False):
        with bus.subscribe(ID, news=True), bus.subscribe(ID, news=True):
            assert bus.news_wanted == [ID]
        assert bus.watched == [ID]
    assert heard == ["busy True", "news True", "news False", "busy False"]


async def test_a_watcher_without_interest_in_news_gets_none() -> None:
    bus = Bus()
    with bus.subscribe(ID, news=False) as subscription:
        bus.publish_news([News(ID, "x", 1)])
        assert await subscription.next(0) is None


@pytest.mark.parametrize(("count", "size"), [(1_001, 1), (9, 1 << 20)])
async def test_a_watcher_that_does_not_read_is_given_up(count: int, size: int) -> None:
    bus = Bus()
    with bus.subscribe(ID, news=True) as subscription:
        bus.publish_news([News(ID, "x", size)] * count)
        with pytest.raises(Aborted):
            await subscription.next(0)


async def test_a_draining_bus_sends_watchers_away_when_they_have_read() -> None:
    bus = Bus()
    with bus.subscribe(ID, news=True) as subscription:
        bus.publish_rows([row()])
        bus.drain()
        assert await subscription.next(0) == row()
        with pytest.raises(Unavailable):
            await subscription.next(0)
    with bus.subscribe(ID, news=True) as late, pytest.raises(Unavailable):
        await late.next(0)


async def test_commits_are_numbered_whether_somebody_listens_or_not() -> None:
    log = CommitLog(Bus())
    log.committed([row(), row()])
    listener = log.listen()
    log.committed([row()])
    listener.interest(interested=True)
    log.committed([row()])
    # The answer to the question carries the latest number; what came before it is not sent.
    assert (await listener.next(0))[:2] == ([], 4)
    log.committed([row(OTHER), row()])
    log.committed([row()])
    batch = await listener.next(0)
    assert [item.task_id for item in batch.changes] == [OTHER, ID, ID]
    assert batch.sequence == 7
    listener.interest(interested=False)
    log.committed([row()])
    assert (await listener.next(0))[:2] == ([], 8)
    log.leave(listener)


async def test_a_listener_that_falls_behind_sees_a_gap() -> None:
    log = CommitLog(Bus())
    listener = log.listen()
    listener.interest(interested=True)
    assert (await listener.next(0))[:2] == ([], 0)
    for _ in range(30):
        log.committed([row()] * 1_000)
    batch = await listener.next(0)
    assert batch.sequence == 30_000
    assert len(batch.changes) < 30_000
    log.drain()
    assert listener.ended


async def test_ends_are_told_to_those_who_wait_and_read_for_those_who_watch() -> None:
    bus = Bus()
    log = CommitLog(bus)
    listener = log.listen()
    listener.interest(interested=True)
    assert (await listener.next(0))[:2] == ([], 0)
    woken: list[bool] = []
    bus.on_unread(lambda: woken.append(True))
    log.over([Over(OTHER, 1)])
    assert not woken
    with (
        bus.subscribe(ID, OTHER, news=False, rows=False) as waiting,
        bus.subscribe(ID, news=True) as watching,
    ):
        log.over([Over(OTHER, 1)])
        assert not woken
        log.over([Over(ID, 2)])
        assert woken
        assert [await waiting.next(0) for _ in range(3)] == [Over(OTHER, 1), Over(ID, 2), None]
        assert await watching.next(0) is None
        assert (bus.take_unread(), bus.take_unread()) == ([ID], [])
    assert await listener.next(0) == ([Over(OTHER, 1), Over(OTHER, 1), Over(ID, 2)], 3, [])
    # Only who looks at all tasks wants the rows.
    assert log.wanted
    assert not log.rows_wanted
    listener.interest(interested=True, creations=True)
    assert log.rows_wanted


async def test_changed_queues_are_told_to_every_listener_once() -> None:
    log = CommitLog(Bus())
    listener = log.listen()
    log.queues_changed([("default", "b"), ("default", "a")])
    log.queues_changed([("default", "a")])
    assert (await listener.next(0)).changed_queues == [("default", "a"), ("default", "b")]
    listener.interest(interested=True)
    log.queues_changed([("default", "c")])
    assert await listener.next(0) == ([], 0, [("default", "c")])
    assert await listener.next(0) == ([], 0, [])
