"""Taskiq on Redis, with a stream, which acknowledges, or with a list, which does not."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Self

from bench.peers.adapters import shape
from taskiq import AsyncTaskiqTask
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend, RedisStreamBroker

CONNECTIONS = 64

made = ListQueueBroker if shape.SETTING == "list" else RedisStreamBroker
broker = made(shape.VALKEY, max_connection_pool_size=CONNECTIONS).with_result_backend(
    RedisAsyncResultBackend(shape.VALKEY, max_connection_pool_size=CONNECTIONS)
)


@broker.task("word_count")
async def word_count(text: str) -> dict[str, int]:
    return shape.word_count(text)


class Client(shape.Client):
    async def __aenter__(self) -> Self:
        await broker.startup()
        return self

    async def __aexit__(self, *_: object) -> None:
        await broker.shutdown()

    async def bulk(self, texts: Sequence[str]) -> Sequence[Any]:
        sent = await shape.concurrently(word_count.kiq, texts)
        return await shape.concurrently(partial(_result, pause=shape.PAUSE), sent)

    async def run(self, text: str) -> Any:
        return await _result(await word_count.kiq(text), shape.GLANCE)


async def _result(task: AsyncTaskiqTask[dict[str, int]], pause: float) -> Any:
    return (await task.wait_result(check_interval=pause)).return_value
