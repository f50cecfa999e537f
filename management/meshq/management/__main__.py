"""`python -m meshq.management`."""

from __future__ import annotations

import os

from meshq.contract.runtime import GRPC_EXPERIMENTS, READ_IN_PLACE

os.environ.setdefault(GRPC_EXPERIMENTS, READ_IN_PLACE)

from meshq.management.app import build
from meshq.management.settings import ManagementSettings
from meshq.mesh.process import run


def main() -> None:
    """Run management until a signal ends it."""
    settings = ManagementSettings.load()
    run(settings, lambda kit: build(kit, settings))


if __name__ == "__main__":
    main()
