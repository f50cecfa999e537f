"""The execution process."""

from __future__ import annotations

from meshq.execution.app import build
from meshq.execution.settings import ExecutionSettings
from meshq.mesh.process import run

if __name__ == "__main__":
    run(ExecutionSettings.load(), build)
