"""Dramatiq on Redis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dramatiq
from bench.peers.adapters import shape
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

PATIENCE_MS = 300_000

broker = RedisBroker(url=shape.PATIENT_VALKEY)
broker.add_middleware(Results(backend=RedisBackend(url=shape.PATIENT_VALKEY)))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True)
def word_count(text: str) -> dict[str, int]:
    return shape.word_count(text)


class Client(shape.Client):
    async def bulk(self, texts: Sequence[str]) -> Sequence[Any]:
        sent = dramatiq.group(word_count.message(text) for text in texts).run()
        return list(sent.get_results(block=True, timeout=PATIENCE_MS))

    async def run(self, text: str) -> Any:
        return word_count.send(text).get_result(block=True, timeout=PATIENCE_MS)
