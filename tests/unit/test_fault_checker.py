"""The checker of the fault suite can fail: each broken promise is found in a run that keeps all others."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from faults import report
from faults.checker import Verdict, at_once, check
from faults.evidence import Counters, End, Evidence, Execution, Row, read_executions
from faults.history import Answered, CallFailed, CancelAsked, History, Mark, Seen, Sent
from faults.workload import KINDS, PER_KEY

from meshq.client import AttemptOutcome, TaskState
from meshq.internal.v1.session_frames_pb2 import LeaseToken

USUAL = [name for name, kind in KINDS.items() if kind.share]
SUCCEEDED, FAILED, LOST = AttemptOutcome.SUCCEEDED, AttemptOutcome.FAILED, AttemptOutcome.LOST


class Run:
    """A run of one task at a time; each second one is created, at .1 accepted, at .2 started, at .4 ended."""

    def __init__(self) -> None:
        self.history = History()
        self.rows: list[Row] = []
        self.ends: list[End] = []
        self.executions: list[Execution] = []
        self.counters: Counters | None = None

    def task(self, serial: int, kind: str, key: str = "") -> str:
        """A task that was created and has succeeded."""
        task_id, lease, at = f"id-{serial}", (1, serial), float(serial)
        self.history.add(Sent(at, serial, kind, key))
        self.history.add(Answered(at + 0.1, serial, task_id))
        self.history.add(Seen(at + 0.1, "watch", task_id, 1, TaskState.PENDING))
        self.history.add(Seen(at + 0.4, "watch", task_id, 1, TaskState.SUCCEEDED))
        self.rows.append(Row(task_id, TaskState.SUCCEEDED, 1, at + 0.4, serial))
        self.ends.append(End(task_id, 1, SUCCEEDED, lease, at + 0.4, serial))
        self.executions.append(Execution(task_id, 1, lease, at + 0.2, at + 0.3))
        return task_id

    def verdict(self) -> Verdict:
        return check(self.history, Evidence(self.rows, self.ends, self.executions, counters=self.counters))

    def problems(self) -> set[str]:
        return set(self.verdict().problems)


@pytest.fixture
def run() -> Run:
    """Some tasks of all kinds, and nothing wrong."""
    made = Run()
    for serial, name in enumerate(USUAL):
        made.task(serial, name, "a" if KINDS[name].key else "")
    return made


def test_a_run_that_keeps_all_promises(run: Run) -> None:
    verdict = run.verdict()
    assert verdict.kept, verdict
    assert (verdict.accepted, verdict.succeeded, verdict.attempts) == (len(USUAL),) * 3
    assert (verdict.lost, verdict.twice, verdict.again, verdict.failed_calls) == (0, 0, 0, 0)
    assert str(verdict) == "all promises kept"


def test_a_task_that_is_not_in_the_ledger_is_lost(run: Run) -> None:
    lost = run.rows.pop(0).task_id
    run.ends = [end for end in run.ends if end.task_id != lost]
    verdict = run.verdict()
    assert verdict.lost == 1
    assert set(verdict.problems) == {"lost"}
    assert lost in str(verdict)


def test_a_task_that_is_still_open_is_lost(run: Run) -> None:
    run.rows[0] = replace(run.rows[0], state=TaskState.RUNNING)
    assert run.verdict().lost == 1


def test_a_task_whose_client_got_no_id_has_to_end_as_well(run: Run) -> None:
    run.history.add(Sent(90.0, 90, "plain"))
    run.history.add(Answered(95.0, 90, None, "unavailable"))
    assert run.problems() == set()  # it may exist or not
    assert run.verdict().failed_calls == 1
    run.rows.append(Row("id-90", TaskState.PENDING, 1, 0.0, 90))
    assert run.problems() == {"not ended"}


def test_two_rows_of_a_task(run: Run) -> None:
    run.rows.append(run.rows[0])
    verdict = run.verdict()
    assert verdict.twice == 1
    assert "recorded twice" in verdict.problems


def test_two_successful_attempts_of_a_task(run: Run) -> None:
    run.ends.append(replace(run.ends[0], attempt=2, lease=(1, 99)))
    verdict = run.verdict()
    assert verdict.twice == 1
    assert "recorded twice" in verdict.problems


def test_an_attempt_with_two_ends(run: Run) -> None:
    run.ends.append(replace(run.ends[0], outcome=FAILED, lease=(1, 99)))
    assert run.verdict().twice == 1


def test_attempts_before_the_one_that_succeeded_are_no_problem(run: Run) -> None:
    task_id = run.rows[0].task_id
    run.rows[0] = replace(run.rows[0], attempt=2)
    run.ends[0] = replace(run.ends[0], attempt=2)
    run.ends.append(End(task_id, 1, LOST, (1, 98), 0.2))
    run.executions.append(Execution(task_id, 1, (1, 98), 0.1, None))
    verdict = run.verdict()
    assert verdict.kept, verdict
    assert verdict.again == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda run: run.ends.__setitem__(0, replace(run.ends[0], outcome=FAILED)),
        lambda run: run.ends.pop(0),
        lambda run: run.ends.__setitem__(0, replace(run.ends[0], result=7)),
        lambda run: run.rows.__setitem__(0, replace(run.rows[0], attempt=2)),
    ],
    ids=["a failed attempt", "no attempt", "another task's result", "another attempt"],
)
def test_success_without_a_success_of_its_own(run: Run, change: Callable[[Run], object]) -> None:
    change(run)
    assert run.problems() == {"outcome"}


def test_a_failure_with_a_successful_attempt(run: Run) -> None:
    run.rows[0] = replace(run.rows[0], state=TaskState.FAILED)
    assert "outcome" in run.problems()


def test_an_end_that_its_kind_does_not_allow(run: Run) -> None:
    run.history.entries = [entry for entry in run.history.entries if not isinstance(entry, Seen)]
    run.rows[0] = replace(run.rows[0], state=TaskState.EXPIRED)
    run.ends[0] = replace(run.ends[0], outcome=FAILED)
    assert run.problems() == {"wrong end"}


def test_cancelled_though_nobody_asked() -> None:
    run = Run()
    run.task(1, "cancelled")
    run.history.entries = [entry for entry in run.history.entries if not isinstance(entry, Seen)]
    run.rows[0] = replace(run.rows[0], state=TaskState.CANCELLED)
    run.ends.clear()
    assert run.problems() == {"wrong end"}
    run.history.add(CancelAsked(1.2, "id-1"))
    assert run.problems() == set()


@pytest.mark.parametrize("source", ["watch", "read"])
def test_a_terminal_state_that_changes(run: Run, source: str) -> None:
    run.history.add(Seen(50.0, source, "id-0", 1, TaskState.FAILED))
    assert run.problems() == {"changed"}


def test_a_terminal_state_that_changes_in_the_ledger_alone(run: Run) -> None:
    run.rows[0] = replace(run.rows[0], state=TaskState.FAILED)
    assert "changed" in run.problems()


def test_an_open_state_after_a_terminal_one(run: Run) -> None:
    run.history.add(Seen(50.0, "read", "id-0", 1, TaskState.RUNNING))
    assert run.problems() == set()  # nothing says that this read came after the watch's event
    run.history.add(Seen(51.0, "watch", "id-0", 1, TaskState.RUNNING))
    assert run.problems() == {"changed"}


@pytest.mark.parametrize("serial", [None, 77])
def test_a_task_that_nobody_created(run: Run, serial: int | None) -> None:
    run.rows.append(Row("id-x", TaskState.SUCCEEDED, 1, 9.0, serial))
    run.ends.append(End("id-x", 1, SUCCEEDED, (1, 77), 9.0, serial))
    assert run.problems() == {"unknown"}


def test_a_task_that_exists_twice_under_two_ids(run: Run) -> None:
    run.rows.append(replace(run.rows[0], task_id="id-x"))
    run.ends.append(replace(run.ends[0], task_id="id-x", lease=(1, 77)))
    assert run.problems() == {"unknown"}


def test_attempts_events_and_executions_of_no_task(run: Run) -> None:
    run.ends.append(End("id-x", 1, SUCCEEDED, (1, 77), 9.0, 77))
    assert run.problems() == {"unknown"}
    run.ends.pop()
    run.history.add(Seen(9.0, "watch", "id-y", 1, TaskState.PENDING))
    assert run.problems() == {"unknown"}
    run.history.entries.pop()
    run.executions.append(Execution("id-z", 1, (1, 78), 9.0, 9.1))
    assert run.problems() == {"unknown"}


def test_only_the_holder_of_a_unique_key_stands_for_another_task() -> None:
    run = Run()
    holder = run.task(1, "unique", "a")
    run.history.add(Sent(1.1, 2, "unique", "a"))
    run.history.add(Answered(1.2, 2, holder))
    assert run.problems() == set()
    # A task that is in the ledger, and was answered as one with another key.
    run.task(3, "unique", "b")
    run.history.add(Answered(3.2, 3, holder))
    assert run.problems() == {"unknown"}


def test_order_within_a_key() -> None:
    run = Run()
    for serial in (1, 2):
        run.task(serial, "ordered", "a")
    run.task(3, "ordered", "b")
    assert run.problems() == set()
    run.executions[1] = replace(run.executions[1], start=1.25)
    assert run.problems() == {"order"}
    run.executions[1] = replace(run.executions[1], start=0.5, end=0.6)
    assert run.problems() == {"order"}


def test_order_where_the_task_before_was_lost_with_its_worker() -> None:
    run = Run()
    for serial in (1, 2):
        run.task(serial, "ordered", "a")
    run.rows[0] = replace(run.rows[0], attempt=2, end=1.9)
    run.ends[0] = replace(run.ends[0], attempt=2, lease=(1, 50))
    run.ends.append(End("id-1", 1, LOST, (1, 1), 1.5))
    # What the fenced worker does after the loss has no part in the order.
    run.executions[0] = replace(run.executions[0], end=5.0)
    run.executions.append(Execution("id-1", 2, (1, 50), 1.6, 1.8))
    assert run.problems() == set()
    run.executions[1] = replace(run.executions[1], start=1.7)
    assert run.problems() == {"order"}


def overlapping(kind: str, count: int) -> Run:
    """Tasks of one key that run from 10 to 11."""
    run = Run()
    for serial in range(count):
        run.task(serial, kind, "a")
        run.executions[serial] = replace(run.executions[serial], start=10.0, end=11.0)
        run.ends[serial] = replace(run.ends[serial], end=11.1)
    return run


def test_a_limit_per_key() -> None:
    assert overlapping("limited", PER_KEY).problems() == set()
    assert overlapping("limited", PER_KEY + 1).problems() == {"limit"}


def test_a_unique_key_is_a_limit_of_one() -> None:
    assert overlapping("unique", 2).problems() == {"limit"}


def test_who_has_lost_the_lease_does_not_count_any_more() -> None:
    run = overlapping("limited", PER_KEY + 1)
    first = run.executions[0]
    # Lost at 10.5, though its worker goes on; another lease of the same attempt has taken over.
    run.ends.append(End(first.task_id, 1, LOST, first.lease, 10.5))
    run.ends[0] = replace(run.ends[0], attempt=2, lease=(1, 60))
    run.rows[0] = replace(run.rows[0], attempt=2)
    assert run.problems() == {"limit"}
    run.executions[1] = replace(run.executions[1], start=10.6)
    assert run.problems() == set()


def test_one_attempt_and_two_starts() -> None:
    run = Run()
    run.task(1, "once")
    run.executions.append(replace(run.executions[0], lease=(1, 70), start=5.0, end=5.1))
    verdict = run.verdict()
    assert set(verdict.problems) == {"started twice"}
    assert verdict.again == 1


def test_a_start_before_its_time() -> None:
    run = Run()
    run.task(1, "delayed")
    run.history.entries[0] = Sent(1.0, 1, "delayed", delay=0.1)
    assert run.problems() == set()
    run.history.entries[0] = Sent(1.0, 1, "delayed", delay=0.5)
    assert run.problems() == {"too early"}


def test_counters_that_say_something_else(run: Run) -> None:
    right = Counters(created=len(USUAL), succeeded=len(USUAL))
    run.counters = right
    assert run.problems() == set()
    run.counters = replace(right, succeeded=len(USUAL) + 1)
    assert run.problems() == {"counters"}


def test_calls_that_failed_are_counted(run: Run) -> None:
    run.history.add(CallFailed(1.0, "read", "unavailable"))
    assert run.verdict().failed_calls == 1
    assert report.failures(run.history) == ["read: unavailable"]


def test_how_many_at_once() -> None:
    assert at_once([]) == 0
    assert at_once([(0.0, 1.0), (1.0, 2.0)]) == 1
    assert at_once([(0.0, 1.0), (0.5, 2.0), (0.9, 1.1), (1.5, 3.0)]) == 3


def test_a_line_says_how_long_it_took(run: Run) -> None:
    run.history.add(Mark(0.0, report.BEGAN))
    run.history.add(Mark(0.25, report.OVER))
    verdict = run.verdict()
    left = Evidence(run.rows, run.ends, run.executions)
    line = report.line("some", 7, history=run.history, left=left, verdict=verdict, kinds=KINDS)
    assert (line.lasted, line.recovery, line.longest_wait, line.kept) == (0.2, 0.2, 0.3, True)
    table = report.printed([line, replace(line, name="other", kept=False, problems="lost: 1")])
    assert "some" in table.splitlines()[1]
    assert "other (seed 7):\nlost: 1" in table


def test_executions_are_read_as_the_handlers_write_them(tmp_path: Path) -> None:
    file = tmp_path / "executions.jsonl"
    token = base64.urlsafe_b64encode(LeaseToken(epoch=3, lease=4).SerializeToString()).decode().rstrip("=")
    line = {"task": "t", "attempt": 1, "token": token, "pid": 5}
    said = [{"t": 1.0, "what": "start"}, {"t": 2.0, "what": "end"}, {"t": 3.0, "what": "start"}]
    text = "".join(json.dumps({**line, **one}) + "\n" for one in said)
    file.write_text(text + '{"t": 4.0, "wh', encoding="utf-8")
    whole = Execution("t", 1, (3, 4), 1.0, 2.0, 5)
    assert read_executions(file) == [whole, replace(whole, start=3.0, end=None)]
    assert read_executions(file, len(text)) == []
    assert read_executions(tmp_path / "none") == []
