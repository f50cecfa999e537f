"""The ledger as execution calls it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import grpc

from meshq.contract.errors import InternalError
from meshq.contract.ids import ID_BYTES
from meshq.contract.status import from_rpc_error
from meshq.execution.model import Directive, Ended, Outcome
from meshq.execution.ring.tombstones import small_content
from meshq.execution.spans import Span
from meshq.internal.v1 import ledger_service_pb2 as pb
from meshq.internal.v1.ledger_service_pb2_grpc import LedgerServiceStub
from meshq.v1.task_pb2 import AttemptOutcome

_CALL_SECONDS: Final = 15.0
_FEW: Final = 32
"""So many reports carry their results in any case: somebody may wait for just these."""


class GrpcLedger:
    """Reports to whichever management instance the mesh picks."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        stub = LedgerServiceStub(channel)
        self._report = stub.ReportAttempts
        self._find_open = stub.FindOpenTasks
        self._results_wanted = False

    async def report(self, reports: Sequence[Ended]) -> list[Directive]:
        """Report ends of attempts, or starts where the outcome is 0.

        Returns:
            What is to be done, in the order of the reports.

        Raises:
            MeshqError: Management does not answer, or refuses.
        """
        messages = [_report(ended) for ended in reports]
        if self._results_wanted or len(reports) <= _FEW:
            _add_content(messages, reports)
        request = pb.ReportAttemptsRequest(reports=messages)
        try:
            response = await self._report(request, timeout=_CALL_SECONDS)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        if len(response.directives) != len(reports):
            raise InternalError("management answered another number of reports than it was sent")
        self._results_wanted = response.results_wanted
        return [Directive(item.kind, item.attempt, item.not_before_ms) for item in response.directives]

    async def attempted(self, spans: Sequence[Span]) -> list[bool]:
        """Whether a task needs attempts that are older than its retention, for each partition of attempts.

        Raises:
            MeshqError: Management does not answer, or refuses.
        """
        asked = [(*span.ids(), span.retention) for span in spans]
        return await self._found(
            [pb.IdRange(first=first, end=end, retention_days=days) for first, end, days in asked],
            attempted_only=True,
        )

    async def open_among(self, task_ids: Sequence[bytes]) -> set[bytes]:
        """Which of some tasks are open; raises `MeshqError`."""
        ranges = [pb.IdRange(first=task_id, end=_next(task_id)) for task_id in task_ids]
        found = await self._found(ranges, attempted_only=False)
        return {task_id for task_id, is_open in zip(task_ids, found, strict=True) if is_open}

    async def _found(self, ranges: Sequence[pb.IdRange], *, attempted_only: bool) -> list[bool]:
        request = pb.FindOpenTasksRequest(ranges=ranges, attempted_only=attempted_only)
        try:
            response = await self._find_open(request, timeout=_CALL_SECONDS)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        if len(response.open) != len(ranges):
            raise InternalError("management answered for another number of ranges than it was asked about")
        return list(response.open)


def _next(task_id: bytes) -> bytes:
    """The id behind one; ids begin with a time, so that the last of all does not occur."""
    return (int.from_bytes(task_id) + 1).to_bytes(ID_BYTES)


def _report(ended: Ended) -> pb.AttemptReport:
    return pb.AttemptReport(
        task_id=ended.task_id,
        attempt=ended.attempt,
        tenant=ended.tenant,
        outcome=AttemptOutcome.ValueType(ended.outcome),
        start_time_ms=ended.start_ms,
        end_time_ms=ended.end_ms,
        worker_id=ended.worker_id,
        error_type=ended.error_type,
        error_message=ended.error_message,
        retry_delay_ms=ended.retry_ms,
        non_retryable=ended.non_retryable,
    )


def _add_content(messages: Sequence[pb.AttemptReport], reports: Sequence[Ended]) -> None:
    for message, ended in zip(messages, reports, strict=True):
        content = small_content(ended) if ended.outcome else None
        if content is None:
            continue
        if ended.outcome == Outcome.SUCCEEDED:
            message.success = content
        else:
            message.error = content
