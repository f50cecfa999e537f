"""What execution reports to the ledger."""

from __future__ import annotations

from typing import Any

import pytest

from meshq.execution.conversion.ledger import GrpcLedger
from meshq.execution.model import Ended, Outcome
from meshq.internal.v1 import ledger_service_pb2 as pb


def ended(number: int, **changes: Any) -> Ended:
    task_id = number.to_bytes(16)
    made = Ended(
        task_id, 1, "default", Outcome.SUCCEEDED, 1, 1, "w", 1, 2, b"result", None, "", "", "shard-1"
    )
    return made._replace(**changes)


async def reported(
    reports: list[Ended], monkeypatch: pytest.MonkeyPatch, *, calls: int = 1, wanted: bool = False
) -> list[pb.AttemptReport]:
    """The reports as they are sent in the last of several calls."""
    sent: list[pb.AttemptReport] = []

    class Stub:
        def __init__(self, channel: object) -> None:
            self.FindOpenTasks = None

        async def ReportAttempts(  # noqa: N802
            self, request: pb.ReportAttemptsRequest, **_: object
        ) -> pb.ReportAttemptsResponse:
            sent[:] = request.reports
            directives = [pb.Directive()] * len(request.reports)
            return pb.ReportAttemptsResponse(directives=directives, results_wanted=wanted)

    monkeypatch.setattr("meshq.execution.conversion.ledger.LedgerServiceStub", Stub)
    ledger = GrpcLedger(None)  # type: ignore[arg-type]
    for _ in range(calls):
        await ledger.report(reports)
    return sent


async def test_small_results_come_along_where_few_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = ended(2, success=b"")
    failed = ended(3, outcome=Outcome.FAILED, success=None, error=b"error")
    large = ended(4, success=b"x" * 257)
    started = ended(5, outcome=0, success=None)
    sent = await reported([ended(1), empty, failed, large, started], monkeypatch)
    assert [item.success for item in sent] == [b"result", b"", b"", b"", b""]
    assert [item.HasField("success") for item in sent] == [True, True, False, False, False]
    assert [item.HasField("error") for item in sent] == [False, False, True, False, False]
    assert sent[2].error == b"error"


async def test_many_reports_carry_none(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = await reported([ended(number) for number in range(33)], monkeypatch)
    assert not any(item.HasField("success") for item in sent)


@pytest.mark.parametrize("wanted", [False, True])
async def test_many_reports_carry_them_where_they_were_wanted_the_last_time(
    monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    sent = await reported([ended(number) for number in range(33)], monkeypatch, calls=2, wanted=wanted)
    assert {item.HasField("success") for item in sent} == {wanted}
