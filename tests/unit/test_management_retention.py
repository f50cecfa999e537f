"""When tasks leave, from what their ids say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshq.contract.ids import lowest_id, new_task_id
from meshq.contract.limits import DEFAULT_RETENTION_DAYS, RETENTION_DAYS
from meshq.management.model.retention import DAY_MS, leave_days, leaving

NOW = 20_000 * DAY_MS + 5


def test_only_the_days_of_the_retentions_in_use_are_wanted() -> None:
    assert leave_days(NOW, [7]) == {20_007, 20_008, 20_009}
    assert leave_days(NOW, [1, 3]) == {20_001, 20_002, 20_003, 20_004, 20_005}
    assert leave_days(NOW, []) == set()


def made(time_ms: int, retention: int) -> bytes:
    return lowest_id(time_ms).bytes[:6] + new_task_id(retention).bytes[6:]


@given(
    st.lists(
        st.tuples(st.integers(0, 400 * DAY_MS), st.integers(0, 7), st.floats(0, 1), st.booleans()), min_size=1
    )
)
def test_every_task_that_has_not_left_leaves_within_the_bounds(
    tasks: list[tuple[int, int, float, bool]],
) -> None:
    """Also one whose id says nothing of its retention, because it was made before ids did."""
    bounds = leaving([made(NOW - age, retention) for age, retention, _, _ in tasks], NOW)
    for age, retention, lived, old in tasks:
        end_ms = NOW - age + int(age * lived)
        leave_ms = end_ms + (DEFAULT_RETENTION_DAYS if old else RETENTION_DAYS[retention]) * DAY_MS
        assert leave_ms < NOW or bounds.first <= leave_ms < bounds.behind


@pytest.mark.parametrize("retention", range(len(RETENTION_DAYS)))
def test_the_bounds_of_a_new_task_are_narrow(retention: int) -> None:
    first_ms, behind_ms = leaving([made(NOW, retention)], NOW)
    apart = abs(RETENTION_DAYS[retention] - DEFAULT_RETENTION_DAYS) * DAY_MS
    assert behind_ms - first_ms <= apart + DAY_MS // 8
