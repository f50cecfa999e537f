"""Why tasks wait, and how running ones get on, from the shards and from all instances."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import grpc

from meshq.execution.conversion.explanations import QueueClass, class_of_task, explanation
from meshq.execution.inquiries import Inquiries
from meshq.execution.news import ProgressBoard
from meshq.execution.servicers.workers import Workers
from meshq.internal.v1 import dispatch_service_pb2 as pb
from meshq.internal.v1.dispatch_service_pb2_grpc import DispatchServiceStub
from meshq.mesh.telemetry import logger
from meshq.v1.task_pb2 import TaskProgress

_log = logger(__name__)

_ANSWER_SECONDS: Final = 2.0


class Explanations:
    """See the module.

    Args:
        inquiries: Asks the shards.
        workers: Of all instances.
        board: The latest progress that this instance has heard.
        others: The addresses of the other instances, by id.
        direct: A channel to an address.
    """

    def __init__(
        self,
        inquiries: Inquiries,
        workers: Workers,
        board: ProgressBoard,
        others: Callable[[], dict[str, str]],
        direct: Callable[[str], grpc.aio.Channel],
    ) -> None:
        self._inquiries = inquiries
        self._workers = workers
        self._board = board
        self._others = others
        self._direct = direct

    def own(self, tasks: Sequence[pb.ExplainedTask]) -> list[pb.Explanation]:
        """Nothing but the progress that this instance has heard."""
        return [pb.Explanation(progress=self._board.of(task.task_id)) for task in tasks]

    async def of(self, tasks: Sequence[pb.ExplainedTask]) -> list[pb.Explanation]:
        """All that is known of tasks, in their order."""
        if not tasks:
            return []
        found = await self._inquiries.explain([task.task_id for task in tasks])
        recovering = self._inquiries.recovering()
        waiting = any(item is not None and item.state in {"ready", "parked"} for item in found)
        running = [
            task
            for task, item in zip(tasks, found, strict=True)
            if item is not None and item.state == "leased"
        ]
        counts, progress = await asyncio.gather(
            self._count_workers() if waiting else _no_workers(), self._progress(running)
        )
        return [
            explanation(item, counts[class_of_task(task)], progress.get(task.task_id), recovering=recovering)
            for task, item in zip(tasks, found, strict=True)
        ]

    async def _count_workers(self) -> Counter[QueueClass]:
        counts: Counter[QueueClass] = Counter()
        for worker in await self._workers.all():
            counts.update(
                (worker.tenant, queue, name) for queue in worker.queues for name in worker.task_types
            )
        return counts

    async def _progress(self, tasks: Sequence[pb.ExplainedTask]) -> dict[bytes, TaskProgress]:
        """The latest word of each running task's handler, whichever instance has heard it."""
        if not tasks:
            return {}
        asked = (self._ask(name, address, tasks) for name, address in self._others().items())
        answers = [self.own(tasks), *await asyncio.gather(*asked)]
        latest: dict[bytes, TaskProgress] = {}
        for answer in answers:
            for task, item in zip(tasks, answer, strict=False):
                known = latest.get(task.task_id)
                if item.HasField("progress") and (known is None or _told(known) < _told(item.progress)):
                    latest[task.task_id] = item.progress
        return latest

    async def _ask(
        self, name: str, address: str, tasks: Sequence[pb.ExplainedTask]
    ) -> Sequence[pb.Explanation]:
        stub = DispatchServiceStub(self._direct(address))
        request = pb.ExplainTasksRequest(tasks=tasks, own_progress=True)
        try:
            response = await stub.ExplainTasks(request, timeout=_ANSWER_SECONDS)
        except grpc.RpcError as error:
            _log.warning("an instance does not tell of progress", instance=name, reason=str(error.code()))
            return ()
        return response.explanations


async def _no_workers() -> Counter[QueueClass]:
    return Counter()


def _told(progress: TaskProgress) -> tuple[int, int]:
    return progress.attempt, progress.report_time.ToNanoseconds()
