"""meshq itself, by the same rules as its peers, through the gateway."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Self

from bench.peers.adapters import shape

from meshq.contract.runtime import GRPC_EXPERIMENTS, READ_IN_PLACE

os.environ.setdefault(GRPC_EXPERIMENTS, READ_IN_PLACE)

from meshq.client import Client as MeshqClient
from meshq.client import TaskSpec


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
        results: list[Any] = [None] * len(texts)
        async for ran in self._client.run_many(specs):
            results[ran.index] = ran.task.result if ran.task else None
        return results

    async def run(self, text: str) -> Any:
        return (await self._client.run("word_count", text)).result
