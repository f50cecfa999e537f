"""Python's runtime as processes of meshq want it."""

from __future__ import annotations

import gc
from typing import Final

GRPC_EXPERIMENTS: Final = "GRPC_EXPERIMENTS"
"""Where gRPC looks in the environment when it is imported."""

READ_IN_PLACE: Final = "-event_engine_client,-event_engine_listener,-event_engine_for_all_other_endpoints"
"""The experiments of gRPC with which the thread that waits for messages reads the sockets itself.

They would otherwise pass through threads of gRPC's own, whose waking is a third of what a call costs.
"""

GRPC_FORKS: Final = "GRPC_ENABLE_FORK_SUPPORT"
"""Where gRPC looks, when it is imported, whether it is to get ready for each fork of the process, `0` for no.

It would stop its threads first, and wait for them with Python's lock, which one of them may be waiting for:
then the process stands still for ever. Only Python code in the child would need that.
"""
_OBJECTS_BETWEEN_COLLECTIONS: Final = 50_000


def collect_rarely() -> None:
    """Let the garbage collector leave alone what is loaded, and run rarely; called once, after the imports.

    A frame is a thousand short-lived objects: with Python's default threshold the collector runs many
    times for each, finds nothing, and takes a quarter of the time and more.
    """
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 20, 20)
