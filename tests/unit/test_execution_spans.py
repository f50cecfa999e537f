"""The partitions of attempts: which days they span, and when they are over."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshq.contract.ids import id_time_ms
from meshq.contract.limits import RETENTION_DAYS
from meshq.execution.spans import DAY_MS, Span, read_span, span_of, spans_of

retentions = st.sampled_from(RETENTION_DAYS)
days = st.integers(0, 40_000)


@given(retentions, days)
def test_a_day_is_in_one_span_whose_name_tells_it(retention: int, day: int) -> None:
    span = span_of(retention, day)
    assert span.first <= day < span.behind
    assert {span_of(retention, other) for other in range(span.first, span.behind)} == {span}
    assert span_of(retention, span.behind) != span
    assert read_span(span.name) == span


@pytest.mark.parametrize("retention", RETENTION_DAYS)
def test_there_are_few_spans_however_long_attempts_are_kept(retention: int) -> None:
    assert len(spans_of(retention, 20_000 - retention - 1, 20_000 + 3)) <= 40


def test_a_span_is_a_range_of_ids() -> None:
    span = span_of(365, 20_000)
    first, behind = (id_time_ms(uuid.UUID(bytes=item)) for item in span.ids())
    assert (first, behind) == (span.first * DAY_MS, (span.first + 12) * DAY_MS)


@pytest.mark.parametrize("name", ["attempts_7_default", "attempts_7", "attempts_before_7_20260101", "other"])
def test_other_tables_are_no_spans(name: str) -> None:
    assert read_span(name) is None


def test_a_span_is_over_a_day_after_its_retention() -> None:
    span = Span(3, 100)
    end_ms = (101 + 3 + 1) * DAY_MS
    assert not span.over(end_ms - 1, 0)
    assert span.over(end_ms, 0)


def test_what_was_made_before_ids_told_is_kept_as_long_as_by_default() -> None:
    told_ms = 100 * DAY_MS + 5
    assert Span(1, 100).kept_ms(told_ms) == Span(1, 101).kept_ms(told_ms - DAY_MS) + 6 * DAY_MS
    assert Span(1, 102).kept_ms(told_ms) == 2 * DAY_MS
    assert Span(30, 100).kept_ms(told_ms) == 31 * DAY_MS
