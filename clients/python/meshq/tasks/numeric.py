"""Tasks on numbers."""

from __future__ import annotations

import math
import statistics
from typing import TypeAlias, TypedDict

from meshq.worker import InvalidInput

Matrix: TypeAlias = list[list[float]]


class Statistics(TypedDict):
    """The result of `calculate_statistics`; `stdev` is None for a single number."""

    count: int
    mean: float
    median: float
    stdev: float | None
    min: float
    max: float


class Product(TypedDict):
    """The result of `matrix_multiply`: the product as a list of rows, and its size."""

    product: Matrix
    rows: int
    columns: int


def calculate_statistics(numbers: list[float]) -> Statistics:
    """Describe a series of numbers.

    Args:
        numbers: The numbers, at least one; `stdev` is that of a sample.
    """
    if not numbers:
        raise InvalidInput("numbers: must hold at least one number")
    for index, number in enumerate(numbers):
        if not math.isfinite(number):
            raise InvalidInput(f"numbers[{index}]: must be finite, not {number}")
    return {
        "count": len(numbers),
        "mean": statistics.fmean(numbers),
        "median": statistics.median(numbers),
        "stdev": statistics.stdev(numbers) if len(numbers) > 1 else None,
        "min": min(numbers),
        "max": max(numbers),
    }


def matrix_multiply(a: Matrix, b: Matrix) -> Product:
    """Multiply two matrices.

    Args:
        a: A list of rows of the same length.
        b: A list of rows of the same length; as many rows as `a` has columns.
    """
    a_columns = _columns("a", a)
    columns = _columns("b", b)
    if a_columns != len(b):
        raise InvalidInput(f"b: must have as many rows as a has columns, {a_columns}, not {len(b)}")
    by_column = list(zip(*b, strict=True))
    product = [[sum(x * y for x, y in zip(row, column, strict=True)) for column in by_column] for row in a]
    return {"product": product, "rows": len(a), "columns": columns}


def _columns(name: str, matrix: Matrix) -> int:
    if not matrix or not matrix[0]:
        raise InvalidInput(f"{name}: must have at least one row and one column")
    columns = len(matrix[0])
    for index, row in enumerate(matrix):
        if len(row) != columns:
            rule = f"must have {columns} numbers like the first row, not {len(row)}"
            raise InvalidInput(f"{name}[{index}]: {rule}")
    return columns
