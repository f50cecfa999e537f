"""The ring changes under load, by the command line: a shard is added, drained and removed."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from meshq.client import SyncClient, TaskSpec
from meshq.local.ports import free_port
from meshq.local.servers import Valkey
from meshq.local.system import System

pytestmark = pytest.mark.slow

MESHQ = str(Path(sysconfig.get_path("scripts")) / "meshq")
NEW = "shard-4"

Ring = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def ring(system: System) -> Ring:
    """`meshq ring` at the edge."""

    def run(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"MESHQ_TARGET": system.edge}
        command = [MESHQ, "ring", *words, "--timeout", "60"]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == code, (done.stdout, done.stderr)
        return done

    return run


@pytest.fixture
def server(server_folder: Path) -> Iterator[Valkey]:
    """One that is no shard yet."""
    server = Valkey(server_folder / NEW, free_port())
    server.start()
    server.wait_ready()
    yield server
    server.stop()


class Load(threading.Thread):
    """Creates tasks until it is told to end."""

    def __init__(self, client: SyncClient) -> None:
        super().__init__(name="load", daemon=True)
        self._client = client
        self._enough = threading.Event()
        self.ids: list[str] = []
        self.refused: list[Any] = []

    def run(self) -> None:
        while not self._enough.wait(0.2):
            for created in self._client.create_many(
                TaskSpec(type="word_count", payload="a b") for _ in range(20)
            ):
                if created.task_id:
                    self.ids.append(created.task_id)
                else:
                    self.refused.append(created)

    def end(self) -> None:
        self._enough.set()
        self.join(60)


def shards(ring: Ring) -> dict[str, Any]:
    lines = ring("list", "--json").stdout.splitlines()
    return {shard["shard"]: shard for shard in map(json.loads, lines)}


def test_a_shard_more_and_one_less_under_load(
    ring: Ring, server: Valkey, client: SyncClient, rest: Any, eventually: Any
) -> None:
    load = Load(client)
    load.start()
    try:
        assert "is in the ring and takes 2" in ring("add", NEW, server.address).stdout
        assert "changes one" in ring("add", NEW, "127.0.0.1:1", code=5).stderr
        assert "127.0.0.1:1 cannot be shard" in ring("add", "other", "127.0.0.1:1", code=5).stderr
        added = eventually(lambda: shards(ring)[NEW], lambda shard: shard["state"] == "ACTIVE")
        assert added["primary_address"] == server.address
        assert added["share"] == pytest.approx(1 / 4, rel=0.05)
        # It works, too: keys come and commands are counted.
        eventually(lambda: shards(ring)[NEW], lambda shard: shard["keys"] > 1)
        assert NEW in ring("list").stdout
        assert "ring drain --wait" in ring("remove", NEW, code=5).stderr
        assert "drained and empty" in ring("drain", NEW, "--wait").stdout
        assert rest("GET", "/v1/shards").json["shards"][3]["state"] == "SHARD_STATE_DRAINING"
        assert "has left the ring" in ring("remove", NEW).stdout
        assert sorted(shards(ring)) == ["shard-1", "shard-2", "shard-3"]
        assert ring("remove", NEW, code=3).stderr.startswith("Error: Cannot remove shard")
    finally:
        load.end()
    assert load.refused == []
    assert load.ids

    def unfinished() -> int:
        found = [client.get_many(load.ids[at : at + 500]).tasks for at in range(0, len(load.ids), 500)]
        return sum(not task.succeeded for part in found for task in part)

    eventually(unfinished, lambda count: count == 0)


def test_bad_changes_are_refused(rest: Any) -> None:
    for method, path, body, reason in (
        ("POST", "/v1/shards", {"shard": "a b", "address": "h:1"}, "INVALID_FIELD"),
        ("POST", "/v1/shards", {"shard": "a", "address": "h"}, "INVALID_FIELD"),
        ("PATCH", "/v1/shards/shard-1", {"weight": 1000}, "INVALID_FIELD"),
        ("PATCH", "/v1/shards/nope", {"weight": 2}, "SHARD_NOT_FOUND"),
        ("POST", "/v1/shards/nope:drain", {}, "SHARD_NOT_FOUND"),
        ("POST", "/v1/shards/nope:activate", {}, "SHARD_NOT_FOUND"),
        ("DELETE", "/v1/shards/shard-1", None, "SHARD_NOT_EMPTY"),
        ("DELETE", "/v1/shards/nope?force=true", None, "SHARD_NOT_FOUND"),
    ):
        assert rest(method, path, body).reason == reason, (method, path)
