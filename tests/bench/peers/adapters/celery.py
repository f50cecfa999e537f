"""Celery with Redis as its broker, and results in Redis or, for `celery-postgres`, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from bench.peers.adapters import shape
from celery import Celery
from celery.result import ResultSet

IN_POSTGRES = shape.SETTING == "postgres"
BACKEND = (
    "db+" + shape.POSTGRES.replace("postgresql:", "postgresql+psycopg:") if IN_POSTGRES else shape.VALKEY
)

app = Celery("peer", broker=shape.VALKEY, backend=BACKEND)
app.conf.update(
    broker_connection_retry_on_startup=True,
    database_create_tables_at_setup=False,
    task_serializer="json",
    worker_hijack_root_logger=False,
    worker_prefetch_multiplier=64,
    worker_send_task_events=False,
)


@app.task(name="word_count")
def word_count(text: str) -> dict[str, int]:
    return shape.word_count(text)


class Client(shape.Client):
    async def __aenter__(self) -> Self:
        if IN_POSTGRES:
            app.backend.ResultSession()  # makes the tables
        return self

    async def bulk(self, texts: Sequence[str]) -> Sequence[Any]:
        with app.producer_pool.acquire(block=True) as producer:
            sent = [word_count.apply_async((text,), producer=producer) for text in texts]
        if IN_POSTGRES:
            return [one.get(interval=shape.PAUSE) for one in sent]
        return ResultSet(sent).join_native()

    async def run(self, text: str) -> Any:
        return word_count.delay(text).get(interval=shape.GLANCE)
