"""Reads what scripts return."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from meshq.execution.model import Explained

_FIELDS_OF_EXPLAINED: Final = 6


def counts(flat: Sequence[bytes]) -> dict[str, int]:
    """A hash of numbers, given as names and numbers in turn."""
    return {key.decode(): int(count) for key, count in zip(flat[::2], flat[1::2], strict=True)}


def explained(reply: Sequence[Any]) -> list[Explained]:
    """What tasks wait for: state, reason and figures of each."""
    found = []
    for at in range(0, len(reply), _FIELDS_OF_EXPLAINED):
        state, why, *figures = reply[at : at + _FIELDS_OF_EXPLAINED]
        found.append(Explained(state.decode(), why.decode(), *figures))
    return found
