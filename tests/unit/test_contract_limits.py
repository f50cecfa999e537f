"""The page about limits has the value of every constant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshq.contract import limits

PAGE = Path(__file__).parents[2] / "docs" / "limits.md"
LIMITS = {name: value for name, value in vars(limits).items() if isinstance(value, int | float)}
TIMES = {86_400: "day", 3_600: "hour", 60: "minute", 1: "s", 0.001: "ms"}
SIZES = {limits.MIB: "MiB", limits.KIB: "KiB"}


def forms(name: str, value: float) -> Iterator[str]:
    """How a value may be written: with a unit, also behind the other end of a range, or without."""
    units = TIMES if name.endswith("_SECONDS") else SIZES
    for size, unit in units.items():
        count = round(value / size, 9)
        if count.is_integer():
            yield rf"{count:,.0f}(?: to [\d.,]+)? {unit}"
    yield re.escape(f"{value:,.15g}" if isinstance(value, float) else f"{value:,}")


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_is_on_the_page(name: str) -> None:
    pattern = rf"(?<![\d.,])(?:{'|'.join(forms(name, LIMITS[name]))})(?![\d]|[.,]\d)"
    assert re.search(pattern, PAGE.read_text()), pattern
