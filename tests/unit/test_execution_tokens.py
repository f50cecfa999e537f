"""Tokens, frames and results at the border of execution."""

from contextlib import suppress

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from meshq.contract.errors import InvalidRequest
from meshq.contract.limits import MAX_FRAME_ITEMS, MAX_PAYLOAD_BYTES, SOFT_FRAME_BYTES
from meshq.execution.conversion.frames import assign_frames, polled
from meshq.execution.conversion.requests import check_output, check_progress, poll_of
from meshq.execution.conversion.results import reported
from meshq.execution.conversion.tokens import carried, decode_token, encode_token
from meshq.execution.model import Lease, Outcome, Traits
from meshq.execution.ring.extras import encode_extras
from meshq.v1 import worker_service_pb2 as pb
from meshq.v1.task_pb2 import Task, TaskError

BAD = Duration(seconds=5, nanos=-6)
LEASE = Lease(b"0123456789abcdef", 2, 5, 77, "shard-1", "default", 1_700_000_000_000)


def test_a_token_names_its_lease() -> None:
    assert decode_token(encode_token(LEASE), "t") == LEASE
    assert encode_token(LEASE) == encode_token(decode_token(encode_token(LEASE), "t"))


def test_a_token_carries_what_limits_need_and_nothing_for_plain_tasks() -> None:
    traits = Traits("key /\n\u00fc" * 16, 3, 0.01, 1_700_000_000_000, 5, 6, announce=True)
    token = encode_token(LEASE, "default/mails/t/somebody", encode_extras(traits))
    assert decode_token(token, "t") == LEASE
    assert carried(token) == ("default/mails/-/", encode_extras(traits))
    assert encode_token(LEASE, "default/mails/t/somebody") == encode_token(LEASE)
    assert carried(encode_token(LEASE)) == ("default/-/-/", b"")


@pytest.mark.parametrize(
    ("lane", "extras"),
    [("d/q/t/", b"x"), ("d/q/t/", b"1 2 3 4 5 6 7"), ("d/q r/t/", b"0 1 1 0 0 0 "),
     ("d/q/t/", b"0 1 nan 0 0 0 "), ("d/q/t/", b"0 1 1 0 0 0 \xff"), ("d//t/", b"0 1 1 0 0 0 ")],
)  # fmt: skip
def test_a_token_that_carries_junk_is_refused(lane: str, extras: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode_token(encode_token(LEASE, lane, extras), "t")


@given(st.binary(max_size=600))
def test_junk_is_no_token(junk: bytes) -> None:
    with suppress(InvalidRequest):
        assert len(decode_token(junk, "results[3].lease_token").task_id) == 16


@pytest.mark.parametrize("junk", [b"", b"\xff", bytes(1_025), encode_token(LEASE._replace(attempt=0))])
def test_of_a_token_that_is_none_the_length_is_told(junk: bytes) -> None:
    with pytest.raises(InvalidRequest, match=rf"^t: must be .*, not {len(junk)} other bytes$"):
        decode_token(junk, "t")


@pytest.mark.parametrize(
    "change",
    [{"task_id": b"short"}, {"attempt": 0}, {"attempt": -1}, {"epoch": 0}, {"number": 0}, {"shard": ""},
     {"tenant": "a/b"}, {"leased_ms": 0}],
)  # fmt: skip
def test_an_implausible_token_is_refused(change: dict[str, object]) -> None:
    token = encode_token(LEASE._replace(**change))  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest):
        decode_token(token, "t")


def test_assignments_are_split_into_frames_without_parsing_them() -> None:
    spec = Task(type="t", data=b"x" * 1_000).SerializeToString()
    frames = [pb.ConnectResponse.FromString(frame) for frame in assign_frames([(spec, b"t", 1)] * 2_500)]
    counts = [len(frame.assign.assignments) for frame in frames]
    assert sum(counts) == 2_500
    assert max(counts) <= MAX_FRAME_ITEMS
    assert all(count * len(spec) <= SOFT_FRAME_BYTES for count in counts)
    assert frames[0].assign.assignments[0].task.data == b"x" * 1_000
    huge = Task(type="t", data=b"x" * (2 * SOFT_FRAME_BYTES)).SerializeToString()
    assert len(list(assign_frames([(huge, b"1", 1), (huge, b"2", 1)]))) == 2
    assert list(assign_frames([])) == []


def test_an_answer_to_a_poll_is_a_public_message() -> None:
    spec = Task(type="t").SerializeToString()
    response = pb.PollTasksResponse.FromString(polled([(spec, b"token", 3, 1_500, b"")]))
    (assignment,) = response.assignments
    assert (assignment.task.type, assignment.lease_token, assignment.attempt) == ("t", b"token", 3)
    assert assignment.expire_time.ToMilliseconds() == 1_500
    assert pb.PollTasksResponse.FromString(polled([])).assignments == []


def result(**outcome: object) -> pb.TaskResult:
    return pb.TaskResult(lease_token=encode_token(LEASE), **outcome)  # type: ignore[arg-type]


def test_a_success_is_kept_as_it_came() -> None:
    success = pb.Success(data=b"out", content_type="text/plain")
    found = reported(result(success=success), "w", LEASE.leased_ms + 10, "results[0]", strict=True)
    assert found.lease == LEASE
    assert found.ended is not None
    assert found.ended.outcome == Outcome.SUCCEEDED
    assert pb.Success.FromString(found.ended.success or b"") == success
    assert (found.ended.start_ms, found.ended.end_ms) == (LEASE.leased_ms, LEASE.leased_ms + 10)
    assert (found.ended.shard, found.ended.epoch, found.ended.number) == ("shard-1", 5, 77)


@pytest.mark.parametrize(("offset", "kept"), [(-5, 0), (0, 0), (7, 7), (10, 10), (11, 0), (10**12, 0)])
def test_a_start_outside_of_the_lease_is_not_believed(offset: int, kept: int) -> None:
    start = Timestamp()
    start.FromMilliseconds(LEASE.leased_ms + offset)
    reported_result = result(success=pb.Success(), start_time=start)
    found = reported(reported_result, "w", LEASE.leased_ms + 10, "r", strict=True)
    assert found.ended is not None
    assert found.ended.start_ms == LEASE.leased_ms + kept


def test_a_result_that_is_too_large_is_refused_or_recorded_as_a_failure() -> None:
    large = result(success=pb.Success(data=b"x" * (MAX_PAYLOAD_BYTES + 1)))
    with pytest.raises(InvalidRequest) as caught:
        reported(large, "w", 1, "results[1]", strict=True)
    assert caught.value.violations[0].field == "results[1].success.data"
    found = reported(large, "w", 1, "results[1]", strict=False)
    assert found.ended is not None
    assert found.ended.error_type == "RESULT_TOO_LARGE"
    assert found.ended.outcome == Outcome.FAILED
    fitting = result(success=pb.Success(data=b"x" * MAX_PAYLOAD_BYTES))
    assert reported(fitting, "w", 1, "r", strict=True).ended


@pytest.mark.parametrize(
    ("outcome", "field"),
    [
        ({}, "r.outcome"),
        ({"failure": pb.Failure()}, "r.failure.error.type"),
        ({"failure": pb.Failure(error=TaskError(message="m"))}, "r.failure.error.type"),
        ({"success": pb.Success(content_type="x" * 129)}, "r.success.content_type"),
        ({"cancelled": pb.Cancelled(message="x" * 1_025)}, "r.cancelled.message"),
        ({"release": pb.Release(reason="x" * 1_025)}, "r.release.reason"),
    ],
)
def test_a_bad_result_names_its_field(outcome: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        reported(result(**outcome), "w", 1, "r", strict=True)
    assert caught.value.violations[0].field == field


@pytest.mark.parametrize(
    ("outcome", "field"),
    [
        ({"failure": pb.Failure(error=TaskError(type="E"), retry_delay=BAD)}, "r.failure.retry_delay"),
        ({"snooze": pb.Snooze(delay=BAD)}, "r.snooze.delay"),
        ({"finish_later": pb.FinishLater(timeout=BAD)}, "r.finish_later.timeout"),
    ],
)
def test_a_time_that_is_none_is_refused_with_its_value(outcome: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        reported(result(**outcome), "w", 1, "r", strict=True)
    (violation,) = caught.value.violations
    assert violation.field == field
    assert violation.rule.endswith(", not seconds 5, nanos -6")


def test_a_release_is_no_end() -> None:
    assert reported(result(release=pb.Release(reason="busy")), "w", 1, "r", strict=True).ended is None


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan"), float("inf")])
def test_bad_progress_names_its_field(fraction: float) -> None:
    with pytest.raises(InvalidRequest, match=r"p\.fraction"):
        check_progress(pb.LeaseProgress(fraction=fraction), "p")


def test_bad_output_names_its_field() -> None:
    for output, field in (
        (pb.LeaseOutput(offset=-1), "o.offset"),
        (pb.LeaseOutput(stream="s" * 65), "o.stream"),
        (pb.LeaseOutput(chunk=b"c" * (64 * 1024 + 1)), "o.chunk"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            check_output(output, "o")
        assert caught.value.violations[0].field == field


@pytest.mark.parametrize("field", ["wait_timeout", "lease_ttl"])
def test_a_poll_for_no_time_names_its_field(field: str) -> None:
    request = pb.PollTasksRequest(worker_id="w", task_types=["t"], **{field: BAD})  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match=rf"^{field}: must be .*, not seconds 5, nanos -6$"):
        poll_of(request)


def test_a_poll_has_defaults() -> None:
    poll = poll_of(pb.PollTasksRequest(worker_id="w", task_types=["t", "t"]))
    assert (poll.max_tasks, poll.wait, poll.lease_ttl) == (1, 20.0, 30.0)
    assert (poll.facts.queues, poll.facts.task_types) == (("default",), ("t",))
