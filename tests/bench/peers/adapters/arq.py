"""arq on Redis."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Self

from arq import create_pool
from arq.connections import RedisSettings
from arq.jobs import Job
from bench.peers.adapters import shape


async def word_count(_context: object, text: str) -> dict[str, int]:
    return shape.word_count(text)


LOGS = {"version": 1, "loggers": {"arq": {"level": "ERROR"}}}


class WorkerSettings:
    functions = (word_count,)
    redis_settings = RedisSettings.from_dsn(shape.VALKEY)
    max_jobs = int(shape.SETTING or 100)
    poll_delay = shape.GLANCE
    log_results = False


class Client(shape.Client):
    async def __aenter__(self) -> Self:
        self._pool = await create_pool(WorkerSettings.redis_settings)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.aclose()

    async def bulk(self, texts: Sequence[str]) -> Sequence[Any]:
        sent = await shape.concurrently(self._submit, texts)
        return await shape.concurrently(partial(Job.result, poll_delay=shape.PAUSE), sent)

    async def run(self, text: str) -> Any:
        return await (await self._submit(text)).result(poll_delay=shape.GLANCE)

    async def _submit(self, text: str) -> Job:
        job = await self._pool.enqueue_job("word_count", text)
        assert job is not None
        return job
