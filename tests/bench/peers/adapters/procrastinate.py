"""Procrastinate on PostgreSQL. It stores no results, so the task writes its own beside the jobs."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any, Self

from bench.peers.adapters import shape
from procrastinate import App, PsycopgConnector

AT_ONCE = 1_000
TABLE = "CREATE TABLE IF NOT EXISTS results (number bigint PRIMARY KEY, words int NOT NULL)"
STORE = "INSERT INTO results VALUES (%(number)s, %(words)s)"
COUNT = "SELECT count(*) FROM results WHERE number >= %(first)s"
READ = "SELECT words FROM results WHERE number >= %(first)s ORDER BY number"

connector = PsycopgConnector(conninfo=shape.POSTGRES)
app = App(connector=connector)


@app.task(name="word_count")
async def word_count(text: str, number: int) -> None:
    words = shape.word_count(text)["word_count"]
    await connector.execute_query_async(STORE, number=number, words=words)


class Client(shape.Client):
    def __init__(self) -> None:
        self._numbers = itertools.count()

    async def __aenter__(self) -> Self:
        await app.open_async()
        await app.schema_manager.apply_schema_async()
        await connector.execute_query_async(TABLE)
        return self

    async def __aexit__(self, *_: object) -> None:
        await app.close_async()

    async def bulk(self, texts: Sequence[str]) -> Sequence[Any]:
        numbers = [next(self._numbers) for _ in texts]
        tasks = [{"text": text, "number": number} for text, number in zip(texts, numbers, strict=True)]
        for start in range(0, len(tasks), AT_ONCE):
            await word_count.batch_defer_async(*tasks[start : start + AT_ONCE])
        return await _results(numbers[0], len(numbers), shape.PAUSE)

    async def run(self, text: str) -> Any:
        number = next(self._numbers)
        await word_count.defer_async(text=text, number=number)
        return (await _results(number, 1, shape.GLANCE))[0]


async def _results(first: int, count: int, pause: float) -> list[dict[str, int]]:
    while await _stored(first) < count:  # noqa: ASYNC110 - it asks a server
        await asyncio.sleep(pause)
    rows = await connector.execute_query_all_async(READ, first=first)
    return [{"word_count": row["words"]} for row in rows]


async def _stored(first: int) -> int:
    return (await connector.execute_query_one_async(COUNT, first=first))["count"]
