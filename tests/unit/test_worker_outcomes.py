"""From what a handler returned or raised to the result that is reported."""

import asyncio
import dataclasses
import datetime as dt
from typing import Any

import pytest

from meshq.contract.limits import MAX_ERROR_MESSAGE_LENGTH, MAX_TRACEBACK_LENGTH
from meshq.v1.worker_service_pb2 import Assignment, TaskResult
from meshq.worker import (
    Data,
    FinishLater,
    InvalidInput,
    NoRetry,
    Retry,
    Snooze,
    TaskCancelled,
    TaskFailure,
    outcomes,
)
from meshq.worker.jobs import Job, Stop
from meshq.worker.registry import Handler, Place


class TestOutcomes:
    def test_json_and_bytes(self) -> None:
        assert outcomes.success(b"l", {"n": 1}).success.result.struct_value.fields["n"].number_value == 1
        assert outcomes.success(b"l", b"\x00").success.data == b"\x00"
        found = outcomes.success(b"l", Data(b"png", "image/png")).success
        assert (found.data, found.content_type) == (b"png", "image/png")

    def test_nothing_is_a_success_without_output(self) -> None:
        result = outcomes.success(b"l", None)
        assert result.WhichOneof("outcome") == "success"
        assert result.success.WhichOneof("output") is None

    def test_what_pydantic_knows_becomes_json(self) -> None:
        @dataclasses.dataclass
        class Report:
            day: dt.date
            tags: set[str]

        fields = outcomes.success(b"l", Report(dt.date(2026, 1, 2), {"a"})).success.result.struct_value.fields
        assert fields["day"].string_value == "2026-01-02"
        assert fields["tags"].list_value.values[0].string_value == "a"

    @pytest.mark.parametrize(
        ("value", "kind", "named"),
        [
            ({"a": [object()]}, "INVALID_RESULT", r"result.a[0]: must be a JSON value, not object"),
            (float("nan"), "INVALID_RESULT", "finite"),
            ("x" * (1 << 20), "RESULT_TOO_LARGE", "must be at most 1,048,576 bytes"),
            (b"x" * ((1 << 20) + 1), "RESULT_TOO_LARGE", "must be at most"),
        ],
    )
    def test_results_that_cannot_be_reported_are_failures(self, value: Any, kind: Any, named: Any) -> None:
        error = outcomes.success(b"l", value).failure.error
        assert error.type == kind
        assert named in error.message

    def test_a_result_of_the_largest_size_is_taken(self) -> None:
        assert outcomes.success(b"l" * 60, b"x" * ((1 << 20) - 10)).HasField("success")

    def test_exceptions_have_a_type_a_message_and_a_traceback(self) -> None:
        def handler() -> None:
            raise KeyError("missing")

        try:
            handler()
        except KeyError as raised:
            error = outcomes.raised(b"l", raised).failure.error
        assert error.type == "KeyError"
        assert error.message == "'missing'"
        assert 'raise KeyError("missing")' in error.traceback
        assert "outcomes.raised" not in error.traceback

    def test_a_broken_exception_is_reported_too(self) -> None:
        class BrokenError(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        error = outcomes.raised(b"l", BrokenError()).failure.error
        assert (error.type, error.message) == ("BrokenError", "the exception has no text")

    def test_a_failure_of_its_own_has_its_type_and_no_traceback(self) -> None:
        error = outcomes.raised(b"l", TaskFailure("no funds", type="NO_FUNDS")).failure.error
        assert (error.type, error.message, error.traceback) == ("NO_FUNDS", "no funds", "")

    def test_texts_are_cut_and_made_valid(self) -> None:
        error = outcomes.failure(b"l", "E", "\ud800" + "m" * 9_000, "t" * 99_000 + "end").failure.error
        assert len(error.message) == MAX_ERROR_MESSAGE_LENGTH
        assert len(error.traceback) == MAX_TRACEBACK_LENGTH
        assert error.traceback.endswith("end")


def seconds(duration: Any) -> Any:
    return duration.ToNanoseconds() / 1e9


class TestEndings:
    def test_a_failure_leaves_its_retry_to_the_policy(self) -> None:
        failure = outcomes.raised(b"l", TaskFailure("busy")).failure
        assert not failure.HasField("retry_delay")
        assert not failure.non_retryable

    @pytest.mark.parametrize("delay", [1.5, dt.timedelta(milliseconds=1_500)])
    def test_a_failure_may_say_when_to_try_again(self, delay: Any) -> None:
        for error in (TaskFailure("busy", retry_delay=delay), Retry(delay, "busy"), Retry(after=delay)):
            failure = outcomes.raised(b"l", error).failure
            assert seconds(failure.retry_delay) == 1.5
            assert not failure.non_retryable
        assert failure.error.type == "Retry"

    def test_at_once_is_a_delay_too(self) -> None:
        assert outcomes.raised(b"l", Retry(0)).failure.HasField("retry_delay")
        assert not outcomes.raised(b"l", Retry()).failure.HasField("retry_delay")

    @pytest.mark.parametrize(
        "error", [TaskFailure("gone", retryable=False), NoRetry("gone"), InvalidInput("gone: must be there")]
    )
    def test_a_failure_may_be_the_last(self, error: Any) -> None:
        assert outcomes.raised(b"l", error).failure.non_retryable

    def test_named_exceptions_are_the_last(self) -> None:
        assert outcomes.raised(b"l", KeyError("a"), (LookupError,)).failure.non_retryable
        assert not outcomes.raised(b"l", ValueError("a"), (LookupError,)).failure.non_retryable
        failure = outcomes.raised(b"l", Retry(5), (Retry,)).failure
        assert failure.non_retryable
        assert not failure.HasField("retry_delay")

    def test_snooze_and_finish_later(self) -> None:
        found = outcomes.raised(b"l", Snooze(dt.timedelta(hours=1), "r" * 2_000)).snooze
        assert (seconds(found.delay), len(found.reason)) == (3_600, 1_024)
        assert seconds(outcomes.raised(b"l", FinishLater(90)).finish_later.timeout) == 90

    @pytest.mark.parametrize(
        ("make", "rule"),
        [
            (lambda: Retry(-1), "after must be 0 s to 30 days, not -1 s"),
            (lambda: Retry(dt.timedelta(days=31)), "after must be 0 s to 30 days, not 2,678,400 s"),
            (lambda: TaskFailure("x", retry_delay=float("nan")), "retry_delay must be 0 s to 30 days"),
            (lambda: TaskFailure("x", retry_delay=1, retryable=False), "retry_delay must not be given"),
            (lambda: Snooze(-0.1), "delay must be 0 s to 365 days, not -0.1 s"),
            (lambda: FinishLater(0.5), "timeout must be 1 s to 30 days, not 0.5 s"),
        ],
    )
    def test_times_have_ranges(self, make: Any, rule: str) -> None:
        with pytest.raises(ValueError, match=rule):
            make()


class TestJob:
    def job(self, *no_retry: type[BaseException]) -> Job:
        handler = Handler("x", lambda: None, Place.THREAD, no_retry)
        job = Job(Assignment(lease_token=b"l", attempt=1), handler, 1.0)
        job.claim()
        return job

    def outcome(self, result: TaskResult | None) -> str | None:
        assert result is not None
        assert result.start_time.seconds > 0
        return result.WhichOneof("outcome")

    @pytest.mark.parametrize(
        ("ending", "outcome"),
        [(Snooze(1), "snooze"), (FinishLater(1), "finish_later"), (Retry(1), "failure")],
    )
    def test_endings_may_be_returned_as_well(self, ending: Any, outcome: str) -> None:
        assert self.outcome(self.job().succeeded(ending)) == outcome
        assert self.outcome(self.job().failed(ending)) == outcome

    def test_the_handler_knows_what_is_no_use(self) -> None:
        result = self.job(ValueError).failed(UnicodeError("x"))
        assert result is not None
        assert result.failure.non_retryable

    def test_stopping_counts_only_when_it_was_asked_for(self) -> None:
        assert self.outcome(self.job().failed(TaskCancelled("on my own"))) == "failure"
        for stop, answered in ((Stop.CANCELLED, True), (Stop.LEASE_LOST, False), (Stop.SHUTDOWN, False)):
            for error in (TaskCancelled("tidied up"), asyncio.CancelledError()):
                job = self.job()
                job.ask_to_stop(stop, "enough")
                result = job.failed(error)
                assert (result is not None) == answered
                if result is not None:
                    assert result.cancelled.message == (str(error) or "enough")

    def test_a_result_counts_although_the_handler_was_to_stop(self) -> None:
        job = self.job()
        job.ask_to_stop(Stop.CANCELLED, "enough")
        assert self.outcome(job.succeeded(1)) == "success"
        assert job.ended
