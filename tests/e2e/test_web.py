"""A browser's path: a program with Connect's gRPC-Web transport over fetch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshq.local.system import System

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "tests" / "web"


@pytest.fixture(scope="module")
def node(tool: Callable[[str], str]) -> str:
    """Node with the packages of tests/web, installed where they are missing and npm is there."""
    node = tool("node")
    if not (WEB / "node_modules" / "@connectrpc").exists():
        command = [tool("npm"), "ci", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=WEB, check=True, capture_output=True, timeout=100)
    return node


def test_create_and_watch_over_grpc_web(node: str, system: System, tmp_path: Path) -> None:
    contract = tmp_path / "contract.binpb"
    subprocess.run([sys.executable, ROOT / "proto" / "generate.py", "--image", contract], check=True)
    run = subprocess.run(
        [node, WEB / "word_count.js", f"http://{system.edge}", contract, "word1 word2 word3"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    (line,) = run.stdout.splitlines()
    told: dict[str, Any] = json.loads(line)
    assert (told["state"], told["result"]) == ("SUCCEEDED", {"word_count": 3})
    assert told["states"][-1] == "SUCCEEDED"


def test_another_origin_may_ask(rest: Any) -> None:
    headers = {
        "Origin": "http://localhost:3000",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,x-grpc-web,grpc-timeout",
    }
    answer = rest("OPTIONS", "/meshq.v1.TaskService/CreateTask", headers=headers)
    assert answer.status in {200, 204}
    assert answer.headers["access-control-allow-origin"] in {"*", "http://localhost:3000"}
