"""The regression guard says which ratio is wrong, and what was expected."""

from __future__ import annotations

from typing import Any

from meshq.local.bench.limit.scenario import RATIOS
from meshq.local.bench.smoke import BOUNDS, Bound, complaints


def figures(lost: int = 0, **ratios: float) -> dict[str, Any]:
    good = {bound.ratio: (max(bound.least, 1.0) if bound.most > 1.0 else bound.least) for bound in BOUNDS}
    cpu = {
        "cpu_us_per_task": {"postgres": 52.3},
        "bulk_cpu_us_per_task": {"execution": 141.7, "postgres": 80.0},
    }
    return {"lost": lost, **cpu, **{name: {"median": ratio} for name, ratio in {**good, **ratios}.items()}}


def test_all_ratios_of_the_limit_are_bounded() -> None:
    assert {bound.ratio for bound in BOUNDS} == set(RATIOS)


def test_good_figures_are_no_reason_to_complain() -> None:
    assert complaints(figures()) == []


def test_a_ratio_out_of_bounds_is_named_with_what_was_expected() -> None:
    complaint, where = complaints(figures(cost_postgres=99.0))
    assert complaint.startswith(
        "the CPU per task of PostgreSQL is 99.00 times that of the limit, and should be at most "
    )
    assert where.endswith(": execution 142, postgres 80 (52)")
    complaint, _ = complaints(figures(fraction=0.001))
    assert complaint.startswith(
        "the throughput of bulk is 0.00 times that of the limit, and should be at least "
    )


def test_bounds_are_within_bounds() -> None:
    bound = Bound("cost", "it", least=1.0, most=2.0)
    assert [bound.broken({"cost": {"median": value}}) for value in (1.0, 2.0)] == [None, None]


def test_what_is_lost_is_said_first() -> None:
    assert complaints(figures(lost=3, cost=999.0))[0] == "3 tasks did not end as they should"
