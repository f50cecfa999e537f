"""What accepting and ending a task costs management, in microseconds of its own processor and in all.

Not a test: `python tests/bench/ledger.py postgresql://...` with the URL of an empty database prints one line
for each step. Frames have 500 tasks with 100 bytes of input; each step is measured over 50,000 tasks. With a
number behind the URL each task has a limit_key, one of so many.
"""

import asyncio
import gc
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import uvloop

from meshq.contract.limits import DEFAULT_RETENTION_DAYS
from meshq.internal.v1 import ledger_service_pb2
from meshq.management.conversion.dispatch import dispatch_frame
from meshq.management.conversion.reports import directive_messages, read_reports
from meshq.management.create import Creator
from meshq.management.finish import Finisher
from meshq.management.model.claims import ClaimKind, Verdict
from meshq.management.model.queues import UNSET, QueueSettings
from meshq.management.model.retention import leave_days
from meshq.management.model.task import Sendable
from meshq.management.postgres.database import Database
from meshq.management.postgres.ledger import PostgresLedger
from meshq.management.servicers.requests import Frame, frame, results
from meshq.management.watch.bus import Bus
from meshq.management.watch.commits import CommitLog
from meshq.v1 import task_pb2, task_service_pb2


class Plain:
    """Queues that nobody has set anything of."""

    def settings(self, tenant: str, queue: str) -> QueueSettings:
        return UNSET

    def refusal(self, tenant: str, queue: str, settings: QueueSettings) -> Verdict | None:
        return None


FRAME = 500
FRAMES = 100
T = TypeVar("T")


def now_ms() -> int:
    return int(time.time() * 1_000)


async def step(name: str, work: Callable[[], Awaitable[T]]) -> T:
    processor, clock = time.process_time(), time.perf_counter()
    done = await work()
    tasks = FRAME * FRAMES / 1e6
    own, passed = (time.process_time() - processor) / tasks, (time.perf_counter() - clock) / tasks
    sys.stdout.write(f"{name:24} {own:6.2f} µs of processor, {passed:6.2f} µs in all\n")
    return done


async def measure(url: str, limit_keys: int) -> None:
    database = Database(url, writers=5, readers=2)
    await database.start()
    ledger = PostgresLedger(database)
    await ledger.prepare_days(leave_days(now_ms(), [DEFAULT_RETENTION_DAYS]))
    sent: list[Sendable] = []
    commits = CommitLog(Bus())
    creator = Creator(ledger, sent.extend, now_ms, created=commits.created, max_open_tasks=10**7)
    finisher = Finisher(ledger, commits, now_ms)
    await creator.start()
    await finisher.start()
    task = task_pb2.Task(type="word_count", queue="q", payload={"string_value": "x" * 100})  # type: ignore[arg-type]
    request = task_service_pb2.IngestTasksRequest(tasks=[task] * FRAME)
    for number, item in enumerate(request.tasks if limit_keys else ()):
        item.limit_key = f"customer-{number % limit_keys}"
    encoded = request.SerializeToString()

    async def check() -> list[Frame]:
        requests = [task_service_pb2.IngestTasksRequest.FromString(encoded) for _ in range(FRAMES)]
        return [frame(ClaimKind.INGEST, item.tasks, 1, secrets.token_hex(4), Plain()) for item in requests]

    checked = await step("parse, check, encode", check)
    accepted = await step("insert", lambda: asyncio.gather(*(creator.submit(i.submission) for i in checked)))

    async def answer() -> list[bytes]:
        pairs = zip(checked, accepted, strict=True)
        return [
            task_service_pb2.IngestTasksResponse(results=results(*pair)).SerializeToString() for pair in pairs
        ]

    await step("answer", answer)

    async def dispatch() -> list[bytes]:
        starts = range(0, len(sent), 1_000)
        return [dispatch_frame(0, sent[start : start + 1_000]).SerializeToString() for start in starts]

    await step("dispatch", dispatch)
    reported = [_reports(sent[start : start + FRAME]) for start in range(0, len(sent), FRAME)]

    async def finish() -> list[bytes]:
        requests = [ledger_service_pb2.ReportAttemptsRequest.FromString(item) for item in reported]
        answers = await asyncio.gather(*(finisher.submit(read_reports(item.reports)) for item in requests))
        return [directive_messages(item).SerializeToString() for item in answers]

    await step("report, finish, direct", finish)
    await creator.stop()
    await finisher.stop()
    await database.stop()


def _reports(items: list[Sendable]) -> bytes:
    request = ledger_service_pb2.ReportAttemptsRequest()
    for item in items:
        request.reports.add(
            task_id=item.task_id,
            attempt=1,
            tenant=item.tenant,
            outcome=task_pb2.ATTEMPT_OUTCOME_SUCCEEDED,
            start_time_ms=now_ms(),
            end_time_ms=now_ms(),
            worker_id="w-1",
        )
    return request.SerializeToString()


if __name__ == "__main__":
    # As the process does, see meshq.management.__main__.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    uvloop.run(measure(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0))
