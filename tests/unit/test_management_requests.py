"""What callers may write, and what becomes of it."""

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from meshq.contract.errors import InvalidRequest
from meshq.contract.limits import MAX_PAYLOAD_BYTES
from meshq.internal.v1 import ledger_service_pb2
from meshq.management.conversion.commits import commit_message, committed_row
from meshq.management.conversion.filters import read_filter
from meshq.management.conversion.reports import read_reports
from meshq.management.conversion.tasks import accept_content, accepted_task, new_task, public_task
from meshq.management.conversion.values import milliseconds, timestamp
from meshq.management.create import Accepted
from meshq.management.model.claims import Answer, ClaimKind, Verdict, fingerprint
from meshq.management.model.pages import (
    filter_digest,
    name_token,
    page_token,
    read_name_token,
    read_page_token,
)
from meshq.management.model.queues import UNSET, QueueSettings
from meshq.management.model.states import State
from meshq.management.model.task import NO_ID, TaskFilter, TaskRow, never_dispatched, shown_state
from meshq.management.model.validation import check_request_id, checked_reason, page_size, storable
from meshq.management.servicers.requests import frame, results
from meshq.v1 import task_pb2, task_service_pb2

ID = bytes(range(16))


class Queues:
    """Queues that are set to something."""

    def __init__(self, settings: QueueSettings = UNSET, verdict: Verdict | None = None) -> None:
        self.known = settings
        self.verdict = verdict

    def settings(self, tenant: str, queue: str) -> QueueSettings:
        return self.known

    def refusal(self, tenant: str, queue: str, settings: QueueSettings) -> Verdict | None:
        return self.verdict


OPEN = Queues()


def fields_of(error: InvalidRequest) -> list[str]:
    return [item.field for item in error.violations]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda task: task.ClearField("type"), "task.type"),
        (lambda task: setattr(task, "type", "no spaces"), "task.type"),
        (lambda task: setattr(task, "type", "-x"), "task.type"),
        (lambda task: setattr(task, "type", "x" * 129), "task.type"),
        (lambda task: setattr(task, "queue", "ä"), "task.queue"),
        (lambda task: setattr(task, "queue", "a\n"), "task.queue"),
        (lambda task: setattr(task, "max_attempts", -1), "task.max_attempts"),
        (lambda task: setattr(task, "max_attempts", 101), "task.max_attempts"),
        (lambda task: setattr(task, "data", bytes(MAX_PAYLOAD_BYTES + 1)), "task.data"),
        (lambda task: setattr(task.payload, "string_value", "x" * MAX_PAYLOAD_BYTES), "task.payload"),
        (lambda task: setattr(task, "content_type", "x" * 129), "task.content_type"),
        (lambda task: task.headers.update({str(n): "" for n in range(33)}), "task.headers"),
        (lambda task: task.headers.update({"": "x"}), "task.headers"),
        (lambda task: task.headers.update({"k" * 65: "x"}), "task.headers"),
        (lambda task: task.headers.update({"k": "x" * 1_025}), "task.headers['k']"),
    ],
)
def test_a_broken_rule_names_its_field(change: Callable[[task_pb2.Task], None], field: str) -> None:
    task = task_pb2.Task(type="t")
    change(task)
    with pytest.raises(InvalidRequest) as caught:
        accept_content(task, "task")
    assert fields_of(caught.value) == [field]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (
            lambda task: setattr(task.payload, "string_value", "p"),
            "must be empty with payload, not 'text/plain'; it names the form of data",
        ),
        (
            lambda task: task.headers.update({"k" * 65: ""}),
            f"keys must have 1 to 64 characters, not 65: '{'k' * 60}'...",
        ),
    ],
)
def test_a_broken_rule_names_the_value(change: Callable[[task_pb2.Task], None], rule: str) -> None:
    task = task_pb2.Task(type="t", content_type="text/plain")
    change(task)
    with pytest.raises(InvalidRequest) as caught:
        accept_content(task, "task")
    assert [item.rule for item in caught.value.violations] == [rule]


def test_all_broken_rules_are_named_at_once() -> None:
    task = task_pb2.Task(queue="?", max_attempts=1_000, content_type="text/plain")
    task.payload.null_value = 0  # type: ignore[assignment]
    with pytest.raises(InvalidRequest) as caught:
        accept_content(task, "tasks[3]")
    assert fields_of(caught.value) == [
        "tasks[3].queue",
        "tasks[3].type",
        "tasks[3].max_attempts",
        "tasks[3].content_type",
    ]


def test_defaults_are_filled_in_and_what_the_server_writes_is_ignored() -> None:
    task = task_pb2.Task(
        type="t", task_id="mine", tenant="mine", state=task_pb2.TASK_STATE_SUCCEEDED, attempt=7, worker_id="w"
    )
    task.result.string_value = "faked"
    task.error.type = "faked"
    spec = new_task(task, accept_content(task, "task"), "default").spec
    stored = task_pb2.Task.FromString(spec)
    assert (stored.queue, stored.max_attempts, stored.tenant) == ("default", 3, "default")
    assert not stored.state
    assert not stored.attempt
    assert stored.WhichOneof("output") is None
    assert not stored.HasField("error")


def test_the_specification_is_one_message_with_the_servers_part() -> None:
    task = task_pb2.Task(type="t", data=b"\x00\xff", content_type="x/y", headers={"b": "2", "a": "1"})
    new = new_task(task, accept_content(task, "task"), "default")
    shown = accepted_task(new)
    assert shown.data == b"\x00\xff"
    assert dict(shown.headers) == {"a": "1", "b": "2"}
    assert shown.task_id.replace("-", "") == new.task_id.hex()
    assert milliseconds(shown.create_time) == new.ready_ms == int.from_bytes(new.task_id[:6], "big")
    assert (shown.state, shown.attempt) == (task_pb2.TASK_STATE_PENDING, 1)


def test_the_fingerprint_is_of_the_content_and_not_of_its_encoding() -> None:
    one = task_pb2.Task(type="t", headers={"a": "1", "b": "2"})
    other = task_pb2.Task(type="t", headers={"b": "2", "a": "1"}, task_id="ignored", queue="default")
    assert accept_content(one, "t") == accept_content(other, "t")
    assert fingerprint([b"ab", b"c"]) != fingerprint([b"a", b"bc"])
    assert fingerprint([b"ab"]) != fingerprint([b"ab", b""])


def test_unknown_fields_are_dropped() -> None:
    task = task_pb2.Task.FromString(task_pb2.Task(type="t").SerializeToString() + b"\xd2\x0f\x01x")
    assert accept_content(task, "task") == accept_content(task_pb2.Task(type="t"), "task")


def row(**changes: Any) -> TaskRow:
    known = TaskRow(ID, "default", "q", "t", State.RUNNING, 2, 3, 5, 10, None, "w", "LOST", "gone", "why", 20)
    return known._replace(**changes)


def test_the_basic_view_comes_from_the_row_alone() -> None:
    task = public_task(row(), 1_000)
    assert task.task_id == "00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert (task.queue, task.type, task.attempt, task.max_attempts) == ("q", "t", 2, 3)
    assert (task.worker_id, task.error.type, task.error.message) == ("w", "LOST", "gone")
    assert (task.cancel_reason, milliseconds(task.cancel_time)) == ("why", 20)
    assert milliseconds(task.attempt_start_time) == 10
    assert not task.HasField("end_time")
    assert milliseconds(task.create_time) == int.from_bytes(ID[:6], "big")


def test_a_commit_travels_whole_but_for_what_the_snapshot_knows() -> None:
    ended = row(state=State.FAILED, end_ms=1_234)
    assert committed_row(commit_message(ended)) == ended
    bare = TaskRow(ID, "default", "q", "t", 3, 1, 3, 5, None, None, None, None, None, None, None)
    assert committed_row(commit_message(bare)) == bare


@pytest.mark.parametrize("state", [State.SCHEDULED, State.RETRYING])
def test_what_waited_for_its_time_is_shown_as_pending_then(state: State) -> None:
    assert shown_state(state, 100, 99) == state
    assert shown_state(state, 100, 100) == State.PENDING
    assert shown_state(State.RUNNING, 100, 200) == State.RUNNING


def test_only_what_no_shard_can_know_was_never_dispatched() -> None:
    far = 10 * 60_000
    assert never_dispatched(State.WAITING, 0, 0)
    assert never_dispatched(State.SCHEDULED, far, 0)
    assert not never_dispatched(State.SCHEDULED, 5 * 60_000, 0)
    assert not never_dispatched(State.RETRYING, far, 0)
    assert not never_dispatched(State.PENDING, far, 0)


@pytest.mark.parametrize("request_id", ["a b", "x" * 129, "ä", "\n"])
def test_a_request_id_is_visible_ascii(request_id: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_request_id(request_id)
    assert fields_of(caught.value) == ["request_id"]


@pytest.mark.parametrize("size", [-1, 1_001])
def test_a_page_has_its_bounds(size: int) -> None:
    with pytest.raises(InvalidRequest):
        page_size(size, 50)
    assert page_size(0, 50) == 50
    assert page_size(1_000, 50) == 1_000


def test_a_reason_is_bounded_and_storable() -> None:
    assert checked_reason("a\x00b") == "a\ufffdb"
    assert storable("plain") == "plain"
    with pytest.raises(InvalidRequest):
        checked_reason("x" * 1_025)


def test_a_page_token_belongs_to_its_filters() -> None:
    digest = filter_digest(TaskFilter("default", (3,), "t"))
    assert read_page_token(page_token(ID, digest), digest) == ID
    for token in ("x", "!", "ä", "A" * 32, page_token(ID, digest) + "A", page_token(ID, bytes(8))):
        with pytest.raises(InvalidRequest) as caught:
            read_page_token(token, digest)
        assert fields_of(caught.value) == ["page_token"]
        assert f", not '{token}" in caught.value.message


def test_a_page_token_of_queues_is_a_name() -> None:
    assert read_name_token(name_token("abc")) == "abc"
    for token in ("____", name_token("a b"), name_token("x" * 129)):
        with pytest.raises(InvalidRequest, match=f"page_token: .*, not '{token[:60]}'"):
            read_name_token(token)


def test_filters_are_checked() -> None:
    request = task_service_pb2.ListTasksRequest(type="?", queue="!", states=[3, 3, 42])  # type: ignore[list-item]
    with pytest.raises(InvalidRequest) as caught:
        read_filter(request, "default")
    assert fields_of(caught.value) == ["type", "queue", "states[2]"]
    request = task_service_pb2.ListTasksRequest(
        min_create_time=Timestamp(seconds=2**62), max_create_time=Timestamp(nanos=-1)
    )
    with pytest.raises(InvalidRequest) as caught:
        read_filter(request, "default", "filter.")
    assert fields_of(caught.value) == ["filter.min_create_time", "filter.max_create_time"]
    assert "not seconds 4611686018427387904, nanos 0" in caught.value.message
    good = task_service_pb2.ListTasksRequest(states=[3, 8, 3], min_create_time=timestamp(1_234))  # type: ignore[list-item]
    assert read_filter(good, "default") == TaskFilter("default", (3, 8), "", "", 1_234, None)


def test_reports_are_made_storable() -> None:
    message = ledger_service_pb2.AttemptReport(
        task_id=ID, error_message="\x00" + "x" * 2_000, worker_id="a\x00"
    )
    (report,) = read_reports([message])
    assert report.error_message == "\ufffd" + "x" * 1_023
    assert report.worker_id == "a\ufffd"
    with pytest.raises(InvalidRequest) as caught:
        read_reports([message, ledger_service_pb2.AttemptReport(task_id=b"short")])
    assert fields_of(caught.value) == ["reports[1].task_id"]


def test_a_batch_names_the_bad_ones_and_keeps_the_others() -> None:
    tasks = [task_pb2.Task(type="t"), task_pb2.Task(), task_pb2.Task(type="t")]
    checked = frame(ClaimKind.BATCH, tasks, 10, "r", OPEN)
    assert len(checked.submission.tasks) == 2
    claim = checked.submission.claim
    assert claim is not None
    assert claim.name == "batch/default/r"
    assert claim.answers[16:32] == bytes(16)
    first, bad, last = results(checked, Accepted())
    assert first.task_id
    assert last.task_id
    assert bad.error.code == 3
    refused = results(checked, Accepted(refused=frozenset({checked.submission.tasks[1].task_id})))
    assert [item.error.code for item in refused] == [0, 3, 13]
    earlier = results(checked, Accepted([Answer(ID), Answer(NO_ID), Answer(NO_ID)]))
    assert [item.task_id.replace("-", "") for item in earlier] == [ID.hex(), "", ""]
    assert [item.error.code for item in earlier] == [0, 3, 13]


@pytest.mark.parametrize(("count", "size"), [(0, 0), (1_001, 10), (1, (8 << 20) + 1)])
def test_a_batch_has_its_bounds(count: int, size: int) -> None:
    with pytest.raises(InvalidRequest) as caught:
        frame(ClaimKind.BATCH, [task_pb2.Task(type="t")] * count, size, "", OPEN)
    assert fields_of(caught.value) == ["tasks"]
