"""Outcomes and results, which execution keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import grpc

from meshq.contract.errors import Reason, Unavailable
from meshq.contract.limits import MAX_FRAME_ITEMS, MAX_LISTED_ATTEMPTS
from meshq.internal.v1 import attempt_service_pb2, attempt_service_pb2_grpc
from meshq.management.model.outcomes import Key, Sought
from meshq.management.model.task import TaskId
from meshq.v1 import task_pb2

_TIMEOUT: Final = 10.0
_RETRY_DELAY: Final = 1.0


class Attempts:
    """Reads what execution has recorded.

    Args:
        channel: Where any execution instance answers.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = attempt_service_pb2_grpc.AttemptServiceStub(channel)

    async def outcomes(
        self, wanted: Sequence[Sought]
    ) -> tuple[dict[Key, attempt_service_pb2.RecordedOutcome], int]:
        """The recorded ends of the first attempts, as far as a frame holds them; how many attempts those are.

        Raises:
            Unavailable: Execution does not answer.
        """
        wanted = wanted[:MAX_FRAME_ITEMS]
        response = await self._get(wanted)
        found = {(outcome.task_id, outcome.attempt): outcome for outcome in response.outcomes}
        if not (response.truncated and found):
            return found, len(wanted)
        return found, [item.key for item in wanted].index(next(reversed(found))) + 1

    async def of_task(self, task_id: TaskId) -> Sequence[task_pb2.Attempt]:
        """The ended attempts of a task, the oldest first; of very many the latest.

        Raises:
            Unavailable: Execution or its database does not answer.
        """
        request = attempt_service_pb2.ListAttemptsRequest(task_id=task_id)
        try:
            response = await self._stub.ListAttempts(request, timeout=_TIMEOUT)
        except grpc.RpcError as error:
            raise Unavailable(
                f"The attempts cannot be read: {_details(error)}",
                Reason.ATTEMPTS_UNAVAILABLE,
                retry_delay=_RETRY_DELAY,
            ) from error
        return response.attempts[-MAX_LISTED_ATTEMPTS:]

    async def forget(self, task_ids: Sequence[TaskId]) -> None:
        """Have execution delete everything about tasks.

        Raises:
            Unavailable: Execution does not answer.
        """
        request = attempt_service_pb2.DeleteAttemptsRequest(task_ids=task_ids)
        try:
            await self._stub.DeleteAttempts(request, timeout=_TIMEOUT)
        except grpc.RpcError as error:
            raise unreachable(error) from error

    async def _get(self, wanted: Sequence[Sought]) -> attempt_service_pb2.BatchGetOutcomesResponse:
        request = attempt_service_pb2.BatchGetOutcomesRequest()
        for item in wanted:
            request.keys.add(
                task_id=item.task_id,
                attempt=item.attempt,
                tenant=item.tenant,
                queue=item.queue,
                limit_key=item.limit_key,
                end_time_ms=item.end_ms,
            )
        try:
            return await self._stub.BatchGetOutcomes(request, timeout=_TIMEOUT)
        except grpc.RpcError as error:
            raise unreachable(error) from error


def unreachable(error: grpc.RpcError) -> Unavailable:
    """What a caller hears when execution does not answer, whatever the transport said."""
    return Unavailable(
        f"Execution does not answer: {_details(error)}",
        Reason.COMPONENT_UNAVAILABLE,
        retry_delay=_RETRY_DELAY,
    )


def _details(error: grpc.RpcError) -> str:
    details = error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error)
    return details or "it gave no reason"
