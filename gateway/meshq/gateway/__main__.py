"""`python -m meshq.gateway`: be a gateway until a signal ends it."""

from __future__ import annotations

import os

from meshq.contract.runtime import GRPC_EXPERIMENTS, GRPC_FORKS, READ_IN_PLACE

os.environ.setdefault(GRPC_EXPERIMENTS, READ_IN_PLACE)
os.environ.setdefault(GRPC_FORKS, "0")  # Envoy is started by fork and exec at once

from meshq.gateway.app import build
from meshq.gateway.settings import GatewaySettings
from meshq.mesh.process import run

if __name__ == "__main__":
    run(GatewaySettings.load(), build)
