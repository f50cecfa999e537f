"""Huey on Redis or, for `huey-postgres`, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.peers.adapters import shape
from huey import PostgresHuey, RedisHuey

huey = (
    PostgresHuey("peer", dsn=shape.POSTGRES)
    if shape.SETTING == "postgres"
    else RedisHuey("peer", url=shape.PATIENT_VALKEY, notify_result=True)
)


@huey.task()
def word_count(text: str) -> dict[str, int]:
    return shape.word_count(text)


class Client(shape.Client):
    async def bulk(self, texts: Sequence[str]) -> Sequence[Any]:
        return word_count.map(texts).get(blocking=True, max_delay=shape.PAUSE)

    async def run(self, text: str) -> Any:
        return word_count(text).get(blocking=True, max_delay=shape.GLANCE)
