"""LedgerService: what execution reports."""

from __future__ import annotations

from typing import Any

import grpc

from meshq.contract.errors import InvalidRequest
from meshq.contract.limits import MAX_FRAME_ITEMS
from meshq.internal.v1 import ledger_service_pb2, ledger_service_pb2_grpc
from meshq.management.conversion import directive_messages, read_reports
from meshq.management.finish import Finisher

Context = grpc.aio.ServicerContext[Any, Any]


class LedgerServicer(ledger_service_pb2_grpc.LedgerServiceServicer):
    """See the protocol."""

    def __init__(self, finisher: Finisher) -> None:
        self._finisher = finisher

    async def ReportAttempts(  # noqa: N802
        self, request: ledger_service_pb2.ReportAttemptsRequest, context: Context
    ) -> ledger_service_pb2.ReportAttemptsResponse:
        """Apply reports and answer each with what is to be done."""
        del context
        if len(request.reports) > MAX_FRAME_ITEMS:
            raise InvalidRequest.field("reports", f"must have at most {MAX_FRAME_ITEMS} entries")
        if not request.reports:
            return ledger_service_pb2.ReportAttemptsResponse()
        return directive_messages(await self._finisher.submit(read_reports(request.reports)))
