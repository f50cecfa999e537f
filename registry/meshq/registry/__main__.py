"""`python -m meshq.registry`."""

from __future__ import annotations

from meshq.mesh.process import run
from meshq.registry.app import build
from meshq.registry.settings import RegistrySettings

if __name__ == "__main__":
    run(RegistrySettings.load(), build)
