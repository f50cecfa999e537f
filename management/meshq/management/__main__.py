"""`python -m meshq.management`."""

from __future__ import annotations

import gc

from meshq.management.app import build
from meshq.management.settings import ManagementSettings
from meshq.mesh.process import run

_OBJECTS_BETWEEN_COLLECTIONS = 50_000


def main() -> None:
    """Run management until a signal ends it."""
    settings = ManagementSettings.load()
    # A frame is a thousand short-lived tuples: with Python's default threshold the collector runs many times
    # for each, finds nothing, and takes a third of the time.
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 20, 20)
    run(settings, lambda kit: build(kit, settings))


if __name__ == "__main__":
    main()
