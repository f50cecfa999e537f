"""Where tasks are, as execution's shards say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import grpc

from meshq.contract.limits import MAX_FRAME_ITEMS
from meshq.internal.v1 import dispatch_service_pb2, dispatch_service_pb2_grpc
from meshq.management.model.placement import Compared, Depth, Withdrawn
from meshq.management.model.task import OpenAttempt, TaskRow
from meshq.management.stubs.attempts import unreachable

_TIMEOUT: Final = 10.0
_DESCRIBE_TIMEOUT: Final = 3.0
_EXPLAIN_TIMEOUT: Final = 1.5


class Placement:
    """Compares, withdraws and counts.

    Args:
        channel: Where any execution instance answers.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = dispatch_service_pb2_grpc.DispatchServiceStub(channel)

    async def compare(self, attempts: Sequence[OpenAttempt]) -> list[Compared]:
        """What the shards know of each attempt, at most 1,000.

        Raises:
            Unavailable: Execution does not answer.
        """
        request = dispatch_service_pb2.CompareTasksRequest()
        add = request.attempts.add
        for item in attempts:
            add(task_id=item.task_id, attempt=item.attempt)
        try:
            response = await self._stub.CompareTasks(request, timeout=_TIMEOUT)
        except grpc.RpcError as error:
            raise unreachable(error) from error
        return [Compared(state) for state in response.states]

    async def withdraw(self, attempts: Sequence[OpenAttempt]) -> list[Withdrawn]:
        """Take tasks off the shards that are to end, at most 1,000; says what was found of each.

        Raises:
            Unavailable: Execution does not answer.
        """
        return await self._withdraw(attempts, dispatch_service_pb2.WITHDRAW_MODE_CANCEL)

    async def recall(self, attempts: Sequence[OpenAttempt]) -> list[Withdrawn]:
        """Take attempts off the shards that no worker has, at most 1,000; those at workers go on.

        Raises:
            Unavailable: Execution does not answer.
        """
        return await self._withdraw(attempts, dispatch_service_pb2.WITHDRAW_MODE_RECALL)

    async def _withdraw(
        self, attempts: Sequence[OpenAttempt], mode: dispatch_service_pb2.WithdrawMode.ValueType
    ) -> list[Withdrawn]:
        request = dispatch_service_pb2.WithdrawTasksRequest()
        add = request.withdrawals.add
        for item in attempts:
            add(
                task_id=item.task_id,
                attempt=item.attempt,
                reason=item.cancel_reason,
                tenant=item.tenant,
                mode=mode,
            )
        try:
            response = await self._stub.WithdrawTasks(request, timeout=_TIMEOUT)
        except grpc.RpcError as error:
            raise unreachable(error) from error
        return [Withdrawn(state) for state in response.states]

    async def explain(self, rows: Sequence[TaskRow]) -> list[dispatch_service_pb2.Explanation]:
        """Why tasks wait, and what running ones last said, one for each of at most 1,000 rows.

        Empty when execution does not answer at once.
        """
        request = dispatch_service_pb2.ExplainTasksRequest()
        for row in rows:
            request.tasks.add(task_id=row.task_id, tenant=row.tenant, queue=row.queue, type=row.type)
        try:
            response = await self._stub.ExplainTasks(request, timeout=_EXPLAIN_TIMEOUT)
        except grpc.RpcError:
            return []
        return list(response.explanations)

    async def depths(self, tenant: str, queues: Sequence[str]) -> tuple[dict[str, Depth], bool]:
        """What the shards hold of each queue, and whether all of them were asked."""
        assert len(queues) <= MAX_FRAME_ITEMS
        request = dispatch_service_pb2.DescribeQueuesRequest(tenant=tenant, queues=queues)
        try:
            response = await self._stub.DescribeQueues(request, timeout=_DESCRIBE_TIMEOUT)
        except grpc.RpcError:
            return {}, False
        found = {
            depth.queue: Depth(depth.ready, depth.delayed, depth.leased, depth.oldest_ready_time_ms)
            for depth in response.depths
        }
        return found, response.complete
