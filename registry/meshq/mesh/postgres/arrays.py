"""Whole columns as PostgreSQL's binary arrays.

psycopg dumps a list item by item in Python, which for a frame of a thousand tasks costs more than the
database does. A join of the encoded items is several times faster.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final

from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap, Dumper
from psycopg.pq import Format

_header: Final = struct.Struct(">iiIii").pack
_length: Final = struct.Struct(">i").pack
_smallint: Final = struct.Struct(">ih").pack
_integer: Final = struct.Struct(">ii").pack
_bigint: Final = struct.Struct(">iq").pack
_UUID_LENGTH: Final = _length(16)
_ZERO: Final = _bigint(8, 0)
_EMPTY_DIMENSIONS: Final = 0


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
    """A column of texts, where the same few values often come again."""
    return TextColumn(_framed(TextColumn, len(values), map(_EncodedTexts().__getitem__, values)))


def byteas(values: Sequence[bytes]) -> ByteaColumn:
    """A column of bytes."""
    return ByteaColumn(
        _framed(ByteaColumn, len(values), [part for value in values for part in (_length(len(value)), value)])
    )


def smallints(values: Sequence[int]) -> SmallintColumn:
    """A column of two-byte numbers, of which there are few."""
    return SmallintColumn(_framed(SmallintColumn, len(values), map(_SMALLINTS.__getitem__, values)))


def integers(values: Sequence[int]) -> IntegerColumn:
    """A column of four-byte numbers."""
    return IntegerColumn(_framed(IntegerColumn, len(values), [_integer(4, value) for value in values]))


def bigints(values: Sequence[int]) -> BigintColumn:
    """A column of eight-byte numbers, which are often all zero."""
    items = [_bigint(8, value) for value in values] if any(values) else [_ZERO] * len(values)
    return BigintColumn(_framed(BigintColumn, len(values), items))


def register(adapters: AdaptersMap) -> None:
    """Teaches a connection to send columns."""
    for column in Column.__subclasses__():
        dumper = type(f"{column.__name__}Dumper", (_ColumnDumper,), {"oid": column.array_oid})
        adapters.register_dumper(column, dumper)


class _ColumnDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Column) -> Buffer:
        return obj


class _EncodedTexts(dict[str, bytes]):
    def __missing__(self, text: str) -> bytes:
        encoded = text.encode()
        self[text] = framed = _length(len(encoded)) + encoded
        return framed


class _EncodedSmallints(dict[int, bytes]):
    def __missing__(self, value: int) -> bytes:
        self[value] = framed = _smallint(2, value)
        return framed


_SMALLINTS: Final = _EncodedSmallints()


def _framed(column: type[Column], count: int, items: Iterable[bytes]) -> bytes:
    if not count:
        return _header(_EMPTY_DIMENSIONS, 0, column.element_oid, 0, 0)[:12]
    return _header(1, 0, column.element_oid, count, 1) + b"".join(items)
