"""RQ on Redis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.peers.adapters import shape
from redis import Redis
from rq import Queue
from rq.job import Job

AT_ONCE = 1_000
PATIENCE = 300

connection = Redis.from_url(shape.PATIENT_VALKEY)
queue = Queue(connection=connection)


class Client(shape.Client):
    async def bulk(self, texts: Sequence[str]) -> Sequence[Any]:
        jobs: list[Job] = []
        for start in range(0, len(texts), AT_ONCE):
            frame = texts[start : start + AT_ONCE]
            jobs += queue.enqueue_many([Queue.prepare_data(shape.word_count, (text,)) for text in frame])
        return [_result(job) for job in jobs]

    async def run(self, text: str) -> Any:
        return _result(queue.enqueue(shape.word_count, text))


def _result(job: Job) -> Any:
    found = job.latest_result(timeout=PATIENCE)
    return found.return_value if found is not None else None
