"""`python -m meshq.registry`."""

from __future__ import annotations

import os

from meshq.contract.runtime import GRPC_EXPERIMENTS, READ_IN_PLACE

os.environ.setdefault(GRPC_EXPERIMENTS, READ_IN_PLACE)

from meshq.mesh.process import run
from meshq.registry.app import build
from meshq.registry.settings import RegistrySettings

if __name__ == "__main__":
    run(RegistrySettings.load(), build)
