"""What our programs have set before gRPC is imported."""

import os
import subprocess
import sys

import pytest

from meshq.contract.runtime import GRPC_EXPERIMENTS, READ_IN_PLACE
from meshq.worker.link import session_environment

PROGRAMS = ("meshq.registry", "meshq.management", "meshq.execution", "meshq.gateway")
IMPORT = """
import os, sys
from importlib import import_module
class Seen:
    def find_spec(self, name, path, target=None):
        if name == "grpc":
            print(os.environ.get("GRPC_EXPERIMENTS"))
sys.meta_path.insert(0, Seen())
import_module(sys.argv[1] + ".__main__")
"""


def answer(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    return subprocess.run(
        [sys.executable, *words], env=inherited | environment, capture_output=True, text=True, check=True
    )


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_has_grpc_read_in_place(program: str) -> None:
    assert answer("-c", IMPORT, program).stdout == f"{READ_IN_PLACE}\n"


def test_a_session_has_grpc_read_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(GRPC_EXPERIMENTS, raising=False)
    assert session_environment()[GRPC_EXPERIMENTS] == READ_IN_PLACE
    monkeypatch.setenv(GRPC_EXPERIMENTS, "event_engine_client")
    assert session_environment()[GRPC_EXPERIMENTS] == "event_engine_client"


def test_what_somebody_has_set_stays() -> None:
    environment = {GRPC_EXPERIMENTS: "event_engine_client"}
    assert answer("-c", IMPORT, "meshq.registry", **environment).stdout == "event_engine_client\n"


@pytest.mark.parametrize(("names", "unknown"), [(READ_IN_PLACE, 0), ("-no_such_thing", 1)])
def test_grpc_knows_what_is_set(names: str, unknown: int) -> None:
    environment = {GRPC_EXPERIMENTS: names, "GRPC_VERBOSITY": "ERROR"}
    assert answer("-c", "import grpc", **environment).stderr.count("Unknown experiment") == unknown
