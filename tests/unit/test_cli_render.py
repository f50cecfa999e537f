"""What people see: nothing is lost, nothing in a task's own text moves their terminal."""

from __future__ import annotations

import datetime as dt
import io
from typing import Any

import pytest
from rich.console import Console, RenderableType

from meshq.cli import drawings, mesh_drawings, queue_drawings, task_drawings, watch
from meshq.cli.output import Output, printable
from meshq.client.models import (
    Attempt,
    AttemptOutcome,
    Instance,
    InstanceState,
    Queue,
    QueueCounts,
    RetryPolicy,
    Ring,
    Service,
    Shard,
    ShardState,
    Task,
    TaskError,
    TaskEvent,
    TaskOutput,
    TaskProgress,
    TaskState,
    Waiting,
    WaitingReason,
    Worker,
    WorkerMode,
    WorkerState,
)

ID = "0199aaaa-0000-7000-8000-000000000000"
START = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)


def drawn(drawing: RenderableType, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(drawing)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def make_task(**fields: Any) -> Task:
    values: dict[str, Any] = {
        "task_id": ID,
        "type": "word_count",
        "queue": "default",
        "max_attempts": 3,
        "attempt": 1,
        "state": TaskState.SUCCEEDED,
        "create_time": START,
        "attempt_start_time": START,
        "end_time": START + dt.timedelta(seconds=1.5),
        "worker_id": "w-1",
    }
    return Task(**values | fields)


def test_the_list_of_tasks() -> None:
    failed = make_task(state=TaskState.FAILED, error=TaskError("ValueError", "no such file\nline two"))
    text = drawn(task_drawings.tasks([make_task(), failed], width=200))
    assert text.count(ID) == 2
    assert "1/3" in text
    assert "1.5 s" in text
    assert "ValueError: no such file" in text
    assert "line two" not in text


def test_ids_are_whole_on_a_narrow_terminal() -> None:
    text = drawn(task_drawings.tasks([make_task()], width=80), width=80)
    assert ID in text
    assert len(text.splitlines()) == 2


def test_one_task_shows_all_there_is() -> None:
    task = make_task(
        payload={"text": "a b"},
        headers={"trace": "1"},
        result={"word_count": 2},
        error=TaskError("ValueError", "first attempt", "Traceback ..."),
    )
    text = drawn(task_drawings.task(task))
    for part in (ID, "default", "SUCCEEDED", '{"text": "a b"}', "trace=1", '{"word_count": 2}', "w-1"):
        assert part in text
    assert "ValueError: first attempt" in text
    assert "cancelled" not in text


def test_null_and_absent_differ() -> None:
    assert "input" not in drawn(task_drawings.task(make_task()))
    assert "input" in drawn(task_drawings.task(make_task(payload=None)))
    assert "3 bytes of image/png" in drawn(
        task_drawings.task(make_task(data=b"png", content_type="image/png"))
    )


def test_the_other_tables() -> None:
    queue = Queue(
        queue="q",
        counts=QueueCounts(open=1_234, expired=7),
        oldest_pending_age=dt.timedelta(hours=3, minutes=5),
        complete=False,
    )
    assert "1,234" in drawn(queue_drawings.queues([queue]))
    assert "q *" in drawn(queue_drawings.queues([queue]))
    assert "3 h 5 min" in drawn(queue_drawings.queue(queue))
    assert "a shard does not answer" in drawn(queue_drawings.queue(queue))
    worker = Worker(
        worker_id="w", mode=WorkerMode.SESSION, state=WorkerState.ACTIVE, slots=4, leases=2, labels={"a": "b"}
    )
    assert "2/4" in drawn(mesh_drawings.workers([worker]))
    assert "a=b" in drawn(mesh_drawings.worker(worker))
    assert "meshq.v1.TaskService" in drawn(
        mesh_drawings.services([Service("meshq.v1.TaskService", "meshq.management", 2)])
    )
    instance = Instance(
        component="meshq.gateway", instance_id="g-1", address="h:1", state=InstanceState.STALE
    )
    assert "STALE" in drawn(mesh_drawings.instances([instance]))
    shard = Shard(shard="s-1", address="h:2", state=ShardState.UNREACHABLE, share=0.333)
    assert "33.3%" in drawn(mesh_drawings.shards(Ring(1, (shard,))))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0123, "12 ms"),
        (59.94, "59.9 s"),
        (61, "1 min 1 s"),
        (3_700, "1 h 1 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert drawings.span(dt.timedelta(seconds=seconds)) == text


def test_lines_in_a_pipe_have_no_blanks_at_their_end(capsys: pytest.CaptureFixture[str]) -> None:
    Output().draw(task_drawings.tasks([make_task()], width=200))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines == [line.rstrip() for line in lines]


def test_control_characters_are_shown_and_not_obeyed() -> None:
    evil = "a\x1b[2Jb\x07\x9bc\td\ne"
    assert printable(evil) == "a\\x1b[2Jb\\x07\\x9bc\td\ne"
    text = drawn(task_drawings.task(make_task(result=evil, error=TaskError("E", evil, evil), worker_id=evil)))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\x9b" not in text


def test_text_is_never_read_as_markup() -> None:
    assert "[red]x[/red] :smile:" in drawn(task_drawings.task(make_task(result="[red]x[/red] :smile:")))


def test_the_live_view_follows_the_events() -> None:
    now = [0.0]
    view = watch.View(clock=lambda: now[0])
    assert view.apply(make_task(state=TaskState.RUNNING)) is None
    assert view.apply(TaskProgress(1, 0.25, "reading")) is None
    now[0] = 2.0
    text = drawn(view)
    for part in (ID, "RUNNING", "attempt 1 of 3", "25%", "reading", "2.0 s", "w-1"):
        assert part in text
    output = TaskOutput(1, 0, "log", b"line\n")
    assert view.apply(output) is output
    view.apply(make_task(state=TaskState.RUNNING, attempt=2))
    assert "25%" not in drawn(view), "progress of an attempt that is over"
    view.apply(make_task(attempt=2))
    assert "✓" in drawn(view)


def test_plain_lines_where_nobody_looks() -> None:
    lines: list[str] = []
    events: list[TaskEvent] = [
        make_task(state=TaskState.PENDING, worker_id="", attempt=1),
        TaskProgress(1, 0.5, "half"),
        TaskOutput(1, 0, "log", b"out\x1b[2J\n"),
        make_task(),
    ]
    last = watch.plain(events, lines.append)
    assert lines == [
        "PENDING, attempt 1 of 3",
        "50% half",
        "out\\x1b[2J",
        "SUCCEEDED, attempt 1 of 3, at w-1",
    ]
    assert last is not None
    assert last.succeeded


def test_a_list_says_shortly_what_tasks_wait_for() -> None:
    limited = Waiting(reason=WaitingReason.KEY_BUSY, message="a long sentence", limit=1_200, in_use=1_200)
    late = Waiting(reason=WaitingReason.NOT_DUE, due_time=START.replace(year=2126))
    items = [make_task(state=TaskState.PENDING, waiting=item, end_time=None) for item in (limited, late)]
    text = drawn(task_drawings.tasks(items, width=200))
    assert "KEY_BUSY, 1,200 of 1,200" in text
    assert "NOT_DUE, due 2126-01-31" in text


@pytest.mark.parametrize(
    ("waiting", "says"),
    [
        (
            Waiting(reason=WaitingReason.QUEUE_LIMIT, message="2 run; its limit is 2.", limit=2, in_use=2),
            "2 run; its limit is 2 [QUEUE_LIMIT]",
        ),
        (Waiting(reason=WaitingReason.KEY_BUSY, limit=2, in_use=2), "may [KEY_BUSY]: 2 of 2 at workers"),
        (
            Waiting(reason=WaitingReason.IN_LINE, message="7 others are before it", ahead=7, workers=1),
            "7 others are before it [IN_LINE]: 1 worker",
        ),
        (
            Waiting(reason=WaitingReason.PREDECESSOR, predecessor_task_id=ID),
            f"an earlier task with its ordering key has not ended [PREDECESSOR]: {ID}",
        ),
    ],
)
def test_one_task_says_what_it_waits_for(waiting: Waiting, says: str) -> None:
    text = drawn(task_drawings.task(make_task(state=TaskState.PENDING, waiting=waiting)))
    assert says + "\n" in "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def test_attempts_are_shown_where_one_is_not_enough() -> None:
    lost = Attempt(attempt=1, outcome=AttemptOutcome.LOST, worker_id="w-9", error=TaskError("LOST"))
    fine = Attempt(attempt=2, outcome=AttemptOutcome.SUCCEEDED, worker_id="w-1")
    assert "OUTCOME" not in drawn(task_drawings.task(make_task(), (fine,)))
    text = drawn(task_drawings.task(make_task(attempt=2), (lost, fine)))
    assert "LOST" in text
    assert "w-9" in text


def test_everything_asked_for_is_shown_and_defaults_are_not() -> None:
    asked = make_task(
        priority=5,
        labels={"team": "a"},
        retry=RetryPolicy(initial_delay=dt.timedelta(seconds=2), non_retryable_errors=("E",)),
        fairness_key="f",
        fairness_weight=0.5,
        unique_key="u",
        unique_window=dt.timedelta(hours=1),
        heartbeat_timeout=dt.timedelta(seconds=5),
    )
    text = drawn(task_drawings.task(asked))
    for part in (
        *("team=a", "after 2.0 s, never after E", "f, weight 0.5", "u (for 1 h 0 min)", "silent 5.0 s"),
    ):
        assert part in text
    plain = drawn(task_drawings.task(make_task()))
    for name in ("priority", "retries", "fairness", "unique key", "timeouts", "labels"):
        assert name not in plain
