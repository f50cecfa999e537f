"""The built-in task types as plain functions, and as a worker calls them."""

import math
from typing import Any

import pytest

from meshq.tasks import (
    calculate_statistics,
    matrix_multiply,
    registry,
    simulate_backup,
    sleep,
    text_summarization,
    word_count,
)
from meshq.tasks.text import split_sentences
from meshq.v1.task_pb2 import Task
from meshq.v1.worker_service_pb2 import LeaseOutput, LeaseProgress
from meshq.worker import InvalidInput, TaskContext

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


def test_all_are_registered() -> None:
    assert set(registry.types) == {
        "word_count",
        "text_summarization",
        "calculate_statistics",
        "matrix_multiply",
        "simulate_backup",
        "sleep",
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
    context = TaskContext(Task(task_id="t"), 1, b"lease", heard)
    found = await simulate_backup(context, files=10, file_bytes=100, steps=4, seconds=0.0)
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
    context = TaskContext(Task(), 1, b"lease", Heard())
    with pytest.raises(InvalidInput, match=f"^{named}:"):
        await simulate_backup(context, **options)
