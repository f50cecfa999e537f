"""SAQ on Redis or, for `saq-postgres`, on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Self

from bench.peers.adapters import shape
from saq import Job, Queue

AT_ONCE = 500

store, concurrency = shape.SETTING.split()
queue = Queue.from_url(shape.POSTGRES if store == "postgres" else shape.VALKEY)


async def word_count(_context: object, *, text: str) -> dict[str, int]:
    return shape.word_count(text)


settings = {"queue": queue, "functions": [word_count], "concurrency": int(concurrency)}


class Client(shape.Client):
    async def __aenter__(self) -> Self:
        await queue.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await queue.disconnect()

    async def bulk(self, texts: Sequence[str]) -> Sequence[Any]:
        keys = await shape.concurrently(_submit, texts)
        found = [await _results(keys[start : start + AT_ONCE]) for start in range(0, len(keys), AT_ONCE)]
        return [result for results in found for result in results]

    async def run(self, text: str) -> Any:
        return await queue.apply("word_count", text=text, poll_interval=shape.GLANCE)


async def _submit(text: str) -> str:
    job = await queue.enqueue("word_count", text=text)
    assert job is not None
    return job.key


async def _results(keys: Sequence[str]) -> list[Any]:
    found: dict[str, Job] = {}
    while waiting := [key for key in keys if key not in found]:
        if found:
            await asyncio.sleep(shape.PAUSE)
        found |= {job.key: job for job in await queue.jobs(waiting) if job is not None and job.completed}
    return [found[key].result for key in keys]
