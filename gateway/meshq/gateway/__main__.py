"""`python -m meshq.gateway`: be a gateway until a signal ends it."""

from __future__ import annotations

import os

# Read by gRPC when it is loaded. Envoy is started by fork and exec at once, so gRPC need not get ready
# for Python code in the child, and would write to the log that it cannot.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from meshq.contract.runtime import GRPC_EXPERIMENTS, READ_IN_PLACE

os.environ.setdefault(GRPC_EXPERIMENTS, READ_IN_PLACE)

from meshq.gateway.app import build
from meshq.gateway.settings import GatewaySettings
from meshq.mesh.process import run

if __name__ == "__main__":
    run(GatewaySettings.load(), build)
