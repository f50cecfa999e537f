"""The execution process."""

from __future__ import annotations

import os

from meshq.contract.runtime import GRPC_EXPERIMENTS, READ_IN_PLACE

os.environ.setdefault(GRPC_EXPERIMENTS, READ_IN_PLACE)

from meshq.execution.app import build
from meshq.execution.settings import ExecutionSettings
from meshq.mesh.process import run

if __name__ == "__main__":
    run(ExecutionSettings.load(), build)
