"""The built-in task types as plain functions, and as a worker calls them."""

import math
from typing import Any

import pytest

from meshq.client.values import from_value, to_value
from meshq.tasks import (
    calculate_statistics,
    fail,
    finish_later,
    matrix_multiply,
    registry,
    simulate_backup,
    sleep,
    snooze_once,
    steps,
    text_summarization,
    word_count,
)
from meshq.tasks.text import split_sentences
from meshq.v1.task_pb2 import Task
from meshq.v1.worker_service_pb2 import Assignment, LeaseOutput, LeaseProgress
from meshq.worker import FinishLater, InvalidInput, Snooze, TaskContext, TaskFailure

TEXT = (
    "Meshq is a distributed task queue. Lunch was good! A task queue hands tasks to workers. "
    "Is it raining? Workers run each task of the queue."
)


class Heard:
    def __init__(self) -> None:
        self.reports: list[LeaseProgress] = []
        self.outputs: list[LeaseOutput] = []

    def progress(self, progress: LeaseProgress) -> None:
        self.reports.append(progress)

    def output(self, output: LeaseOutput) -> None:
        self.outputs.append(output)

    def keep_alive(self, job: object) -> None:
        raise AssertionError(job)


def context(heard: Heard, attempt: int = 1, checkpoint: Any = None) -> TaskContext:
    assignment = Assignment(task=Task(task_id="t"), attempt=attempt, lease_token=b"lease")
    if checkpoint is not None:
        assignment.checkpoint.CopyFrom(to_value(checkpoint))
    return TaskContext(assignment, heard)


def test_all_are_registered() -> None:
    assert set(registry.types) == {
        "word_count",
        "text_summarization",
        "calculate_statistics",
        "matrix_multiply",
        "simulate_backup",
        "sleep",
        "fail",
        "steps",
        "snooze_once",
        "finish_later",
    }


@pytest.mark.parametrize(
    ("text", "count"), [("word1 word2 word3", 3), ("", 0), ("  a\n\tb ", 2), ("naïve café", 2)]
)
def test_words_stand_between_spaces(text: Any, count: Any) -> None:
    assert word_count(text) == {"word_count": count}


def test_statistics_of_a_sample() -> None:
    found = calculate_statistics([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0])
    assert found["stdev"] == pytest.approx(2.13809, abs=1e-5)
    assert {**found, "stdev": None} == {
        "count": 8,
        "mean": 5.0,
        "median": 4.5,
        "stdev": None,
        "min": 2.0,
        "max": 9.0,
    }


def test_a_single_number_has_no_deviation() -> None:
    assert calculate_statistics([3.0])["stdev"] is None


@pytest.mark.parametrize("numbers", [[], [1.0, math.nan], [math.inf]])
def test_statistics_need_finite_numbers(numbers: Any) -> None:
    with pytest.raises(InvalidInput, match="numbers"):
        calculate_statistics(numbers)


def test_a_product_of_matrices() -> None:
    assert matrix_multiply([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [[7.0], [8.0], [9.0]]) == {
        "product": [[50.0], [122.0]],
        "rows": 2,
        "columns": 1,
    }


@pytest.mark.parametrize(
    ("a", "b", "named"),
    [
        ([[1.0, 2.0]], [[1.0, 2.0]], "b: must have as many rows as a has columns, 2, not 1"),
        ([[1.0], [1.0, 2.0]], [[1.0]], r"a\[1\]: must have 1 numbers"),
        ([[1.0]], [[]], "b: must have at least one row"),
        ([], [[1.0]], "a: must have at least one row"),
    ],
)
def test_dimensions_that_do_not_fit_are_named(a: Any, b: Any, named: Any) -> None:
    with pytest.raises(InvalidInput, match=named):
        matrix_multiply(a, b)


def test_a_summary_keeps_what_the_text_is_about_in_its_order() -> None:
    found = text_summarization(TEXT, sentences=2)
    assert found["total_sentences"] == 5
    assert found["sentences"] == 2
    assert "Lunch" not in found["summary"]
    assert "raining" not in found["summary"]
    positions = [TEXT.index(sentence) for sentence in split_sentences(found["summary"])]
    assert positions == sorted(positions)


def test_a_short_text_is_its_own_summary() -> None:
    assert text_summarization("Only this.")["summary"] == "Only this."
    assert text_summarization("")["summary"] == ""


def test_a_summary_needs_a_sentence() -> None:
    with pytest.raises(InvalidInput, match="sentences: must be at least 1"):
        text_summarization("Text.", sentences=0)


def test_sentences_end_with_their_quotation_marks() -> None:
    assert split_sentences('He said "no." Then he left.  Why?!') == [
        'He said "no."',
        "Then he left.",
        "Why?!",
    ]


async def test_sleep_sleeps() -> None:
    assert await sleep(0.0) == {"slept_seconds": 0.0}


@pytest.mark.parametrize("seconds", [-1.0, math.nan, 1e9])
async def test_sleep_has_a_range(seconds: Any) -> None:
    with pytest.raises(InvalidInput, match="seconds: must be 0 to 86,400"):
        await sleep(seconds)


async def test_a_backup_reports_each_step() -> None:
    heard = Heard()
    found = await simulate_backup(context(heard), files=10, file_bytes=100, steps=4, seconds=0.0)
    assert found == {"files": 10, "bytes": 1_000, "steps": 4, "seconds": 0.0}
    assert [report.fraction for report in heard.reports] == [0.25, 0.5, 0.75, 1.0]
    assert heard.reports[0].message == "2 of 10 files"
    assert [output.stream for output in heard.outputs] == ["log"] * 4


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"files": 0}, "files"),
        ({"file_bytes": -1}, "file_bytes"),
        ({"steps": 0}, "steps"),
        ({"seconds": -1}, "seconds"),
    ],
)
async def test_a_backup_names_what_it_cannot_do(options: Any, named: Any) -> None:
    with pytest.raises(InvalidInput, match=f"^{named}:"):
        await simulate_backup(context(Heard()), **options)


async def test_fail_fails_so_many_times() -> None:
    for attempt in (1, 2):
        with pytest.raises(TaskFailure, match=f"attempt {attempt} of 2 that fail") as raised:
            await fail(context(Heard(), attempt), times=2, error_type="E", retry_delay=1.5)
        error = raised.value
        assert (error.type, error.retry_delay, error.retryable) == ("E", 1.5, True)
    assert await fail(context(Heard(), 3), times=2) == {"attempt": 3}
    with pytest.raises(TaskFailure) as raised:
        await fail(context(Heard()), non_retryable=True)
    assert not raised.value.retryable


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"times": -1}, "times: must be 0 to 10,000, not -1"),
        ({"error_type": ""}, "error_type: must be 1 to 256 characters, not 0"),
        ({"retry_delay": -1}, "retry_delay: must be 0 to 2,592,000"),
        ({"retry_delay": 1, "non_retryable": True}, "retry_delay: must not be given"),
    ],
)
async def test_fail_names_what_it_cannot_do(options: Any, named: Any) -> None:
    with pytest.raises(InvalidInput, match=f"^{named}"):
        await fail(context(Heard()), **options)


async def test_steps_go_on_where_the_last_attempt_stopped() -> None:
    heard = Heard()
    with pytest.raises(TaskFailure, match="stumbled after step 2"):
        await steps(context(heard), steps=4, seconds=0, fail_after=2)
    left = [report.checkpoint.number_value for report in heard.reports if report.HasField("checkpoint")]
    assert left == [1, 2]
    heard = Heard()
    found = await steps(context(heard, 2, left[-1]), steps=4, seconds=0, fail_after=3)
    assert found == {"steps": 4, "resumed_after": 2, "attempt": 2}
    assert [report.fraction for report in heard.reports if report.HasField("fraction")] == [0.75, 1.0]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"steps": 0}, "steps"),
        ({"seconds": -1}, "seconds"),
        ({"fail_after": 11}, "fail_after: must be 1 to 10, not 11"),
    ],
)
async def test_steps_name_what_they_cannot_do(options: Any, named: Any) -> None:
    with pytest.raises(InvalidInput, match=f"^{named}"):
        await steps(context(Heard()), **options)


async def test_snooze_once_snoozes_once() -> None:
    with pytest.raises(Snooze) as raised:
        await snooze_once(context(Heard()), 5)
    assert raised.value.delay == 5
    assert await snooze_once(context(Heard(), 2), 5) == {"snoozed_seconds": 5, "attempt": 2}
    with pytest.raises(InvalidInput, match="seconds: must be 0 to 31,536,000, not -1"):
        await snooze_once(context(Heard()), -1)


async def test_finish_later_shows_its_token() -> None:
    heard = Heard()
    with pytest.raises(FinishLater) as raised:
        await finish_later(context(heard), 60)
    assert raised.value.timeout == 60
    assert from_value(heard.reports[0].detail) == {"lease_token": "bGVhc2U"}
    assert heard.outputs[0].chunk == b"lease token: bGVhc2U\n"
    with pytest.raises(InvalidInput, match="timeout: must be 1 to 2,592,000, not 0"):
        await finish_later(context(Heard()), 0)
