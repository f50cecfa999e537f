"""Which tasks a filter selects, and the tokens of watches."""

import uuid
from typing import Any

import pytest

from meshq.contract.errors import InvalidRequest
from meshq.contract.ids import id_time_ms, new_task_id
from meshq.management.model.changes import state_after
from meshq.management.model.filters import selects
from meshq.management.model.pages import filter_digest, read_resume_token, resume_token
from meshq.management.model.states import State
from meshq.management.model.task import NewTask, TaskFilter, TaskId, TaskRow
from meshq.management.postgres.selections import conditions
from meshq.management.watch.bus import Bus, Change, Follower, Gap
from meshq.management.watch.commits import CommitLog

NOW = 1_000_000
ID: TaskId = new_task_id().bytes
MADE_MS = id_time_ms(uuid.UUID(bytes=ID))


def row(**fields: Any) -> TaskRow:
    known = {
        "task_id": ID,
        "tenant": "default",
        "queue": "q",
        "type": "t",
        "state": State.PENDING,
        "attempt": 1,
        "max_attempts": 3,
        "ready_ms": NOW,
        "labels": ["a=1", "b=2"],
    }
    none = dict.fromkeys(
        ("start_ms", "end_ms", "worker_id", "error_type", "error_message", "cancel_reason", "cancel_ms")
    )
    return TaskRow(**{**none, **known, **fields})


def wanted(**fields: Any) -> TaskFilter:
    return TaskFilter("default", **fields)


@pytest.mark.parametrize(
    ("filter_", "selected"),
    [
        (wanted(), True),
        (TaskFilter("other"), False),
        (wanted(queue="q", type="t", labels=("a=1",), states=(3, 7)), True),
        (wanted(queue="p"), False),
        (wanted(type="u"), False),
        (wanted(states=(4,)), False),
        (wanted(labels=("a=1", "b=2")), True),
        (wanted(labels=("a=1", "c=3")), False),
        (wanted(min_create_ms=MADE_MS, max_create_ms=MADE_MS + 1), True),
        (wanted(min_create_ms=MADE_MS + 1), False),
        (wanted(max_create_ms=MADE_MS), False),
    ],
)
def test_all_parts_of_a_filter_have_to_hold(filter_: TaskFilter, selected: bool) -> None:
    assert selects(filter_, row(), NOW) == selected


@pytest.mark.parametrize("state", [State.SCHEDULED, State.RETRYING])
def test_what_is_due_counts_as_pending(state: State) -> None:
    for now_ms, pending in ((NOW - 1, False), (NOW, True)):
        assert selects(wanted(states=(3,)), row(state=state), now_ms) == pending
        assert selects(wanted(states=(int(state),)), row(state=state), now_ms) != pending
    assert not selects(wanted(labels=("a=1",)), row(labels=None), NOW)


def test_only_tables_that_can_have_a_state_are_read() -> None:
    only_open, only_ended, both = (conditions(wanted(states=states), NOW) for states in ((3,), (8,), (3, 8)))
    assert only_open.ended is None
    assert only_ended.open is None
    assert both.open is not None
    assert both.ended is not None
    assert "state" not in (conditions(wanted(states=(1, 2, 3, 4, 5, 6)), NOW).open or "")


def test_filters_with_other_labels_have_other_pages() -> None:
    assert filter_digest(wanted(labels=("a=1",))) != filter_digest(wanted())
    assert wanted().empty
    assert not wanted(labels=("a=1",)).empty


def test_a_resume_token_is_only_what_was_made_here() -> None:
    assert read_resume_token(resume_token(NOW)) == NOW
    for bad in (b"x", resume_token(NOW)[:-1], resume_token(NOW) + b"x", bytes(12)):
        with pytest.raises(InvalidRequest):
            read_resume_token(bad)


@pytest.mark.parametrize(
    ("state", "ready_ms", "after"),
    [
        (State.WAITING, NOW, State.WAITING),
        (State.PENDING, NOW, State.PENDING),
        (State.PENDING, NOW + 1, State.SCHEDULED),
        (State.SCHEDULED, NOW, State.PENDING),
        (State.RETRYING, NOW + 1, State.RETRYING),
        (State.RETRYING, NOW, State.PENDING),
    ],
)
def test_a_moved_start_moves_the_state(state: State, ready_ms: int, after: State) -> None:
    assert state_after(row(state=state), ready_ms, NOW) == after


def follower(filter_: TaskFilter) -> Follower:
    return Follower(lambda item: selects(filter_, item, NOW), lambda: 5)


async def test_a_follower_gets_what_its_filter_selects_and_hears_of_gaps() -> None:
    bus = Bus()
    changes: list[bool] = []
    bus.on_watched(lambda: changes.append(bus.creations_wanted))
    with bus.follow(follower(wanted(queue="q"))) as subscription:
        bus.publish_rows([row(queue="p"), row()])
        bus.publish_creations([row(attempt=2)])
        bus.publish_gap()
        assert await subscription.next(0) == Change(row(), 5)
        assert await subscription.next(0) == Change(row(attempt=2), 5)
        assert await subscription.next(0) is Gap.GAP
        assert await subscription.next(0) is None
        with bus.subscribe(ID, news=False):
            pass
    assert changes == [True, False]
    assert not bus.busy


async def test_creations_count_only_for_those_who_want_them() -> None:
    bus = Bus()
    log = CommitLog(bus)
    told, plain = log.listen(), log.listen()
    log.created([])
    plain.interest(interested=True)
    assert (await plain.next(0)).sequence == 0
    log.created([_new(), _new()])
    told.interest(interested=True, creations=True)
    # What was created before shows as a jump, so that the listener reads it.
    assert (await told.next(0))[:2] == ([], 2)
    log.created([_new()])
    log.committed([row()])
    batch = await told.next(0)
    assert (len(batch.changes), batch.sequence) == (2, 4)
    batch = await plain.next(0)
    assert (len(batch.changes), batch.sequence) == (1, 1)


def _new() -> NewTask:
    return NewTask(new_task_id().bytes, "default", "q", "t", State.PENDING, 3, NOW, b"")
