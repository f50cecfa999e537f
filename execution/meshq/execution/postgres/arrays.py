"""Whole columns as PostgreSQL's binary arrays.

psycopg dumps a list item by item in Python, which for a thousand rows costs more than the statement itself; a
join of the encoded items is several times faster.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final

from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap, Dumper
from psycopg.pq import Format

_ONE_DIMENSION: Final = struct.Struct(">iiIii").pack
_NO_DIMENSION: Final = struct.Struct(">iiI").pack
_length: Final = struct.Struct(">i").pack
_UUID_LENGTH: Final = _length(16)
_NUMBERS: Final = {2: struct.Struct(">ih").pack, 4: struct.Struct(">ii").pack, 8: struct.Struct(">iq").pack}


class Column(bytes):
    """An encoded array; its class says of what."""

    element_oid: int
    array_oid: int


class UuidColumn(Column):
    """A `uuid[]`."""

    element_oid, array_oid = 2950, 2951


class TextColumn(Column):
    """A `text[]`."""

    element_oid, array_oid = 25, 1009


class ByteaColumn(Column):
    """A `bytea[]`."""

    element_oid, array_oid = 17, 1001


class SmallintColumn(Column):
    """A `smallint[]`."""

    element_oid, array_oid = 21, 1005


class IntegerColumn(Column):
    """An `integer[]`."""

    element_oid, array_oid = 23, 1007


class BigintColumn(Column):
    """A `bigint[]`."""

    element_oid, array_oid = 20, 1016


def uuids(values: Sequence[bytes]) -> UuidColumn:
    """A column of ids, 16 bytes each."""
    return UuidColumn(_framed(UuidColumn, len(values), [_UUID_LENGTH + value for value in values]))


def texts(values: Sequence[str]) -> TextColumn:
    """A column of texts."""
    return TextColumn(_framed(TextColumn, len(values), _sized([value.encode() for value in values])))


def byteas(values: Sequence[bytes]) -> ByteaColumn:
    """A column of bytes."""
    return ByteaColumn(_framed(ByteaColumn, len(values), _sized(values)))


def smallints(values: Sequence[int]) -> SmallintColumn:
    """A column of two-byte numbers."""
    return SmallintColumn(_framed(SmallintColumn, len(values), _numbers(2, values)))


def integers(values: Sequence[int]) -> IntegerColumn:
    """A column of four-byte numbers."""
    return IntegerColumn(_framed(IntegerColumn, len(values), _numbers(4, values)))


def bigints(values: Sequence[int]) -> BigintColumn:
    """A column of eight-byte numbers."""
    return BigintColumn(_framed(BigintColumn, len(values), _numbers(8, values)))


def register(adapters: AdaptersMap) -> None:
    """Teach a connection to send columns."""
    for column in Column.__subclasses__():
        dumper = type(f"{column.__name__}Dumper", (_ColumnDumper,), {"oid": column.array_oid})
        adapters.register_dumper(column, dumper)


class _ColumnDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Column) -> Buffer:
        return obj


def _sized(values: Iterable[bytes]) -> list[bytes]:
    return [part for value in values for part in (_length(len(value)), value)]


def _numbers(width: int, values: Iterable[int]) -> list[bytes]:
    pack = _NUMBERS[width]
    return [pack(width, value) for value in values]


def _framed(column: type[Column], count: int, items: Iterable[bytes]) -> bytes:
    if not count:
        return _NO_DIMENSION(0, 0, column.element_oid)
    return _ONE_DIMENSION(1, 0, column.element_oid, count, 1) + b"".join(items)
