"""`python -m meshq.gateway`: be a gateway until a signal ends it."""

from __future__ import annotations

from meshq.gateway.app import build
from meshq.gateway.settings import GatewaySettings
from meshq.mesh.process import run

if __name__ == "__main__":
    run(GatewaySettings.load(), build)
