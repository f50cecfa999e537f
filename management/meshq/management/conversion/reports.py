"""What execution reports, and what it is answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from meshq.contract.errors import InvalidRequest
from meshq.contract.ids import ID_BYTES
from meshq.contract.limits import MAX_LEDGER_MESSAGE_LENGTH
from meshq.internal.v1 import ledger_service_pb2
from meshq.management.model.reports import Directive, Report
from meshq.management.model.validation import storable
from meshq.v1 import task_pb2

_DELAYED: Final = frozenset({task_pb2.ATTEMPT_OUTCOME_FAILED, task_pb2.ATTEMPT_OUTCOME_SNOOZED})
"""Outcomes that may name the delay before the next attempt."""


def read_reports(messages: Sequence[ledger_service_pb2.AttemptReport]) -> list[Report]:
    """The reports of a call.

    Raises:
        InvalidRequest: An id has another length than 16.
    """
    reports = [
        Report(
            item.task_id,
            item.attempt,
            item.outcome,
            item.start_time_ms,
            item.end_time_ms,
            storable(item.worker_id),
            item.error_type and storable(item.error_type),
            item.error_message and storable(item.error_message[:MAX_LEDGER_MESSAGE_LENGTH]),
            item.retry_delay_ms if item.outcome in _DELAYED and item.HasField("retry_delay_ms") else None,
            item.non_retryable,
        )
        for item in messages
    ]
    for index, report in enumerate(reports):
        if len(report.task_id) != ID_BYTES:
            raise InvalidRequest.field(f"reports[{index}].task_id", "must have 16 bytes")
    return reports


def directive_messages(directives: Sequence[Directive]) -> ledger_service_pb2.ReportAttemptsResponse:
    """The answer to reports."""
    response = ledger_service_pb2.ReportAttemptsResponse()
    add = response.directives.add
    for kind, attempt, not_before_ms, state in directives:
        add(kind=kind, attempt=attempt, not_before_ms=not_before_ms, state=state)
    return response
