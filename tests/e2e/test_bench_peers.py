"""The comparison with other task queues, played with two of them: one on Valkey, one on PostgreSQL."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]

REPOSITORY = Path(__file__).resolve().parents[2]
PEERS = ("huey", "saq-postgres")


def test_two_peers_are_measured_beside_meshq(tmp_path: Path) -> None:
    written = tmp_path / "peers.json"
    command = [sys.executable, "-m", "bench.peers", *PEERS, "--quick", "--json", str(written)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "tests")}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(written.read_text())
    assert figures == json.loads(done.stdout.splitlines()[-1])
    assert figures.keys() == {"meshq", *PEERS}
    assert all(of["lost"] == 0 and of["throughput_per_s"]["median"] > 0 for of in figures.values())
    assert all(figures[peer]["meshq_ratio"]["median"] > 0 for peer in PEERS)
