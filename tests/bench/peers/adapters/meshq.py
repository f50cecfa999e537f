"""meshq itself, by the same rules as its peers, through the gateway."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Self

from bench.peers.adapters import shape

from meshq.client import Client as MeshqClient
from meshq.client import TaskSpec, TaskView

AT_ONCE = 1_000


class Client(shape.Client):
    def __init__(self) -> None:
        self._client = MeshqClient(os.environ["PEER_MESHQ"])

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def bulk(self, texts: Sequence[str]) -> Sequence[Any]:
        specs = (TaskSpec(type="word_count", payload=text) for text in texts)
        created = [one async for one in self._client.create_many(specs)]
        ids = [one.task_id for one in sorted(created, key=lambda one: one.index) if one.task_id]
        results: list[Any] = []
        for start in range(0, len(ids), AT_ONCE):
            ended = await self._client.wait(ids[start : start + AT_ONCE], view=TaskView.FULL)
            results += [task.result for task in ended.tasks]
        return results

    async def run(self, text: str) -> Any:
        return (await self._client.run("word_count", text)).result
