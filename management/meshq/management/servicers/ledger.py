"""LedgerService: what execution reports and asks."""

from __future__ import annotations

from typing import Any

import grpc

from meshq.contract.errors import InvalidRequest
from meshq.contract.ids import ID_BYTES
from meshq.contract.limits import MAX_FRAME_ITEMS, RETENTION_DAYS
from meshq.internal.v1 import ledger_service_pb2, ledger_service_pb2_grpc
from meshq.management.conversion.contents import content_of
from meshq.management.conversion.reports import directive_messages, read_reports
from meshq.management.finish import Finisher
from meshq.management.ledger import Ledger
from meshq.management.model.retention import IdRange
from meshq.management.watch.commits import CommitLog
from meshq.management.watch.fresh import FreshContent

Context = grpc.aio.ServicerContext[Any, Any]


class LedgerServicer(ledger_service_pb2_grpc.LedgerServiceServicer):
    """See the protocol.

    Args:
        finisher: Takes reports.
        ledger: Is asked.
        commits: Say whether anybody wants to know what ends.
        fresh: Keeps results for those.
    """

    def __init__(self, finisher: Finisher, ledger: Ledger, commits: CommitLog, fresh: FreshContent) -> None:
        self._finisher = finisher
        self._ledger = ledger
        self._commits = commits
        self._fresh = fresh

    async def ReportAttempts(  # noqa: N802
        self, request: ledger_service_pb2.ReportAttemptsRequest, context: Context
    ) -> ledger_service_pb2.ReportAttemptsResponse:
        """Apply reports and answer each with what is to be done."""
        del context
        if len(request.reports) > MAX_FRAME_ITEMS:
            raise InvalidRequest.field("reports", f"must have at most {MAX_FRAME_ITEMS} entries")
        if not request.reports:
            return ledger_service_pb2.ReportAttemptsResponse()
        reports = read_reports(request.reports)
        wanted = self._commits.wanted
        if wanted:
            for report in request.reports:
                if content := content_of(report):
                    self._fresh.add((report.task_id, report.attempt), content)
        response = directive_messages(await self._finisher.submit(reports))
        response.results_wanted = wanted
        return response

    async def FindOpenTasks(  # noqa: N802
        self, request: ledger_service_pb2.FindOpenTasksRequest, context: Context
    ) -> ledger_service_pb2.FindOpenTasksResponse:
        """Say for ranges of ids whether a task in them is open."""
        del context
        if len(request.ranges) > MAX_FRAME_ITEMS:
            raise InvalidRequest.field(
                "ranges", f"must have at most {MAX_FRAME_ITEMS} entries, not {len(request.ranges)}"
            )
        ranges = [_range(item, f"ranges[{index}]") for index, item in enumerate(request.ranges)]
        if not ranges:
            return ledger_service_pb2.FindOpenTasksResponse()
        find = self._ledger.find_attempted if request.attempted_only else self._ledger.find_open
        found = await find(ranges)
        return ledger_service_pb2.FindOpenTasksResponse(open=found)


def _range(item: ledger_service_pb2.IdRange, path: str) -> IdRange:
    for field, value in (("first", item.first), ("end", item.end)):
        if len(value) != ID_BYTES:
            raise InvalidRequest.field(f"{path}.{field}", f"must have {ID_BYTES} bytes, not {len(value)}")
    if item.end < item.first:
        raise InvalidRequest.field(f"{path}.end", f"must not be below first, not {item.end.hex()}")
    if item.retention_days not in (0, *RETENTION_DAYS):
        rule = f"must be 0 or the days of a retention, not {item.retention_days}"
        raise InvalidRequest.field(f"{path}.retention_days", rule)
    return IdRange(item.first, item.end, item.retention_days)
