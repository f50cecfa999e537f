"""The client of one peer, in the peer's interpreter: `python -m bench.peers.client ADAPTER`.

It reads one order a line, `bulk N` or `single N`, and answers each with a line of JSON. Its first line says
that the peer is prepared for workers.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import IO, Any

from bench.peers.adapters.shape import Client, word_count

TEXT = "one two three"


async def serve(client: Client, answers: IO[str]) -> None:
    """Follow the orders of standard input until it ends."""
    acts = {"bulk": _bulk, "single": _single}
    async with client:
        _answer(answers, {"ready": True})
        while line := await asyncio.to_thread(sys.stdin.readline):
            order, count = line.split()
            _answer(answers, await acts[order](client, int(count)))


async def _bulk(client: Client, count: int) -> dict[str, Any]:
    texts = [TEXT] * count
    gc.collect()
    begun = time.perf_counter()
    results = await client.bulk(texts)
    return {"seconds": time.perf_counter() - begun, "lost": count - _right(results)}


async def _single(client: Client, count: int) -> dict[str, Any]:
    waits, results = [], []
    for _ in range(count):
        begun = time.perf_counter()
        results.append(await client.run(TEXT))
        waits.append((time.perf_counter() - begun) * 1000)
    return {"waits_ms": waits, "lost": count - _right(results)}


def _right(results: Sequence[Any]) -> int:
    expected = word_count(TEXT)
    return sum(result == expected for result in results)


def _answer(answers: IO[str], answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def main() -> None:
    """Run the client of the adapter that is named; whatever else is printed goes to the log."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        adapter = importlib.import_module(f"bench.peers.adapters.{sys.argv[1]}")
        try:
            import uvloop  # type: ignore[import-not-found, unused-ignore]
        except ImportError:
            asyncio.run(serve(adapter.Client(), answers))
        else:
            uvloop.run(serve(adapter.Client(), answers))


if __name__ == "__main__":
    main()
