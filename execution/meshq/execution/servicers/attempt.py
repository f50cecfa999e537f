"""`AttemptService`: what is recorded of attempts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import grpc

from meshq.contract.errors import InvalidRequest
from meshq.contract.ids import ID_BYTES
from meshq.contract.limits import MAX_FRAME_BYTES
from meshq.execution.conversion.attempts import attempts_response, outcomes_response, sought
from meshq.execution.conversion.dispatch import check_ids
from meshq.execution.model import Ended
from meshq.execution.results import Results
from meshq.internal.v1 import attempt_service_pb2 as pb
from meshq.internal.v1.attempt_service_pb2_grpc import AttemptServiceServicer

NAME: Final = "meshq.internal.v1.AttemptService"

Context = grpc.aio.ServicerContext[Any, Any]


class Attempts(Protocol):
    """Where ends are kept."""

    async def list(self, task_id: bytes) -> list[Ended]:
        """All ended attempts of a task."""

    async def delete(self, task_ids: Sequence[bytes]) -> None:
        """Forget the attempts of tasks."""


class AttemptServicer(AttemptServiceServicer):
    """See the module.

    Args:
        attempts: The database.
        results: Looks at the tombstones first.
    """

    def __init__(self, attempts: Attempts, results: Results) -> None:
        self._attempts = attempts
        self._results = results

    async def BatchGetOutcomes(  # noqa: N802
        self,
        request: pb.BatchGetOutcomesRequest,
        context: Context,  # noqa: ARG002
    ) -> pb.BatchGetOutcomesResponse:
        """Return recorded ends with their results."""
        check_ids([key.task_id for key in request.keys], "keys")
        found = await self._results.find([sought(key) for key in request.keys], MAX_FRAME_BYTES)
        return outcomes_response(found)

    async def ListAttempts(  # noqa: N802
        self,
        request: pb.ListAttemptsRequest,
        context: Context,  # noqa: ARG002
    ) -> pb.ListAttemptsResponse:
        """Return all ended attempts of one task."""
        if len(request.task_id) != ID_BYTES:
            raise InvalidRequest.field("task_id", f"must have {ID_BYTES} bytes, not {len(request.task_id)}")
        return attempts_response(await self._attempts.list(request.task_id))

    async def DeleteAttempts(  # noqa: N802
        self,
        request: pb.DeleteAttemptsRequest,
        context: Context,  # noqa: ARG002
    ) -> pb.DeleteAttemptsResponse:
        """Forget attempts and results."""
        check_ids(request.task_ids, "task_ids")
        await self._attempts.delete(request.task_ids)
        return pb.DeleteAttemptsResponse()
