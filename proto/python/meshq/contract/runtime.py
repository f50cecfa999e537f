"""Python's runtime as processes of meshq want it."""

from __future__ import annotations

import gc
from typing import Final

_OBJECTS_BETWEEN_COLLECTIONS: Final = 50_000


def collect_rarely() -> None:
    """Let the garbage collector leave alone what is loaded, and run rarely; called once, after the imports.

    A frame is a thousand short-lived objects: with Python's default threshold the collector runs many
    times for each, finds nothing, and takes a quarter of the time and more.
    """
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 20, 20)
