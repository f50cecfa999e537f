"""Task ids: their order, their bounds, and what happens to text that is none."""

from __future__ import annotations

import contextlib
import time
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshq.contract.errors import InvalidRequest
from meshq.contract.ids import (
    ID_BYTES,
    id_retention_days,
    id_time_ms,
    lowest_id,
    make_ids_by,
    new_task_id,
    parse_task_id,
)
from meshq.contract.limits import DEFAULT_RETENTION_DAYS, RETENTION_DAYS


def test_ids_ascend_and_are_of_version_7() -> None:
    ids = [new_task_id() for _ in range(10_000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    assert {item.version for item in ids} == {7}
    assert {len(item.bytes) for item in ids} == {ID_BYTES}


def test_an_id_knows_its_retention() -> None:
    assert id_retention_days(new_task_id()) == DEFAULT_RETENTION_DAYS
    ids = [new_task_id(number % len(RETENTION_DAYS)) for number in range(10_000)]
    assert [id_retention_days(item) for item in ids[:8]] == list(RETENTION_DAYS)
    assert ids == sorted(ids)
    assert {(item.version, item.variant) for item in ids} == {(7, uuid.RFC_4122)}


def test_order_is_the_same_as_text_bytes_and_value() -> None:
    ids = [new_task_id() for _ in range(100)]
    assert sorted(ids) == sorted(ids, key=str) == sorted(ids, key=lambda item: item.bytes)


def test_an_id_knows_its_time() -> None:
    before = time.time_ns() // 1_000_000
    made = id_time_ms(new_task_id())
    assert before - 1 <= made <= time.time_ns() // 1_000_000 + 1


@given(st.integers(0, (1 << 48) - 1))
def test_the_bound_is_below_every_id_of_its_time(time_ms: int) -> None:
    bound = lowest_id(time_ms)
    assert id_time_ms(bound) == time_ms
    lowest_real = uuid.UUID(int=(time_ms << 80) | (7 << 76) | (2 << 62))
    highest_before = uuid.UUID(int=(time_ms << 80) - 1) if time_ms else None
    assert bound < lowest_real
    assert highest_before is None or highest_before < bound


@given(st.integers(-(1 << 70), 1 << 70))
def test_bounds_are_clamped(time_ms: int) -> None:
    assert 0 <= id_time_ms(lowest_id(time_ms)) < 1 << 48


def test_parsing_takes_either_case() -> None:
    made = new_task_id()
    assert parse_task_id(str(made)) == parse_task_id(str(made).upper()) == made


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "0" * 36,
        "-" * 36,
        "{01234567-89ab-7def-8123-456789abcd}",
        "0123456789ab7def8123456789abcdef",
        "urn:uuid:01234567-89ab-7def-8123-4567",
        "01234567-89ab-7def-8123-456789abcdeg",
        "x" * 10_000,
        "01234567-89ab-7def-8123-456789abcde\n",
    ],
)
def test_parse_errors_name_field_and_value(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_task_id(text, "task_ids[4]")
    (violation,) = caught.value.violations
    assert violation.field == "task_ids[4]"
    assert "UUID in its canonical form" in violation.rule
    assert len(violation.rule) < 120


@given(st.text(max_size=60))
def test_parsing_never_fails_otherwise(text: str) -> None:
    with contextlib.suppress(InvalidRequest):
        assert str(parse_task_id(text)) == text.lower()


def test_ids_have_the_time_of_the_clock_that_they_are_made_by() -> None:
    times = [1_800_000_000_000, 1_799_996_400_000, 1_800_003_600_000, time.time_ns() // 1_000_000]
    try:
        for now in times:
            make_ids_by(lambda now=now: now)  # type: ignore[misc]
            made = new_task_id()
            assert abs(id_time_ms(made) - now) < 1_000
            assert (made.version, made.variant) == (7, uuid.RFC_4122)
    finally:
        make_ids_by(None)
