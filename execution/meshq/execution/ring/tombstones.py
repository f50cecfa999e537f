"""What shards keep of tasks that have ended, for a minute or two."""

from __future__ import annotations

from typing import Final

from meshq.execution.model import Ended

_BURIED_BYTES: Final = 256
"""Larger results are not kept in tombstones."""


def tombstone(ended: Ended) -> bytes:
    """What a tombstone keeps of an end: its outcome, and the result where it is small."""
    content = small_content(ended)
    return b"0 " if content is None else b"%d %s" % (ended.outcome, content)


def small_content(ended: Ended) -> bytes | None:
    """The encoded result or error of an end, if it is small."""
    content = (ended.success if ended.outcome == 1 else ended.error) or b""
    return content if len(content) <= _BURIED_BYTES else None


def light(ended: Ended) -> Ended:
    """An end that takes little memory and leaves the same tombstone: of a large result only the beginning."""
    if len(ended.success or ended.error or b"") <= _BURIED_BYTES:
        return ended
    most = _BURIED_BYTES + 1
    return ended._replace(
        success=ended.success and ended.success[:most], error=ended.error and ended.error[:most]
    )
