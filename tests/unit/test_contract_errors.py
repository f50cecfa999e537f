"""Errors survive the wire, and the tables of reasons agree with the contract."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from meshq.contract import errors
from meshq.contract.errors import CLASS_OF_CODE, FieldViolation, InvalidRequest, MeshqError, Reason
from meshq.contract.status import STATUS_KEY, from_rpc_error, from_status, packed, to_status
from meshq.v1 import error_reason_pb2

PREFIX = "ERROR_REASON_"
CLASSES = sorted(MeshqError.__subclasses__(), key=lambda cls: cls.__name__)


class FakeRpcError(grpc.RpcError):
    """What gRPC raises, as far as the conversion reads it."""

    def __init__(self, code: grpc.StatusCode, details: str, trailing: tuple[tuple[str, bytes], ...]) -> None:
        super().__init__(details)
        self._code, self._details, self._trailing = code, details, trailing

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> Any:
        return self._trailing


def test_reasons_are_those_of_the_contract() -> None:
    in_proto = {
        value.name.removeprefix(PREFIX)
        for value in error_reason_pb2.ErrorReason.DESCRIPTOR.values
        if value.number
    }
    assert {reason.value for reason in Reason} == in_proto
    assert all(reason.name == reason.value for reason in Reason)


def test_every_class_has_a_code_of_its_own() -> None:
    assert {cls.code for cls in CLASSES} == set(CLASS_OF_CODE)
    assert len(CLASSES) == len(CLASS_OF_CODE)


def test_the_tree_in_the_docstring_is_the_real_one() -> None:
    drawn = {line.split()[1] for line in (errors.__doc__ or "").splitlines() if line[:1] in "├└" and line}
    assert drawn == {cls.__name__ for cls in CLASSES}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("reason", Reason)
def test_round_trip(cls: type[MeshqError], reason: Reason) -> None:
    error = cls("it failed; do this", reason, retry_delay=1.25, task_id="t-1")
    status = to_status(error)
    back = from_status(status_pb2.Status.FromString(status.SerializeToString()))
    assert type(back) is cls
    assert (back.message, back.reason, back.retry_delay) == ("it failed; do this", reason, 1.25)
    assert back.metadata == {"task_id": "t-1"}
    assert back.code is cls.code


def test_violations_round_trip() -> None:
    violations = [FieldViolation("tasks[3].queue", "must be short"), FieldViolation("page_size", "is -1")]
    back = from_status(to_status(InvalidRequest(violations)))
    assert isinstance(back, InvalidRequest)
    assert list(back.violations) == violations
    assert back.message == "tasks[3].queue: must be short; page_size: is -1"


def test_rpc_error_with_details() -> None:
    status = to_status(errors.NotFound("no such queue", Reason.QUEUE_NOT_FOUND, queue="q"))
    caught = FakeRpcError(
        grpc.StatusCode.NOT_FOUND, "no such queue", ((STATUS_KEY, status.SerializeToString()),)
    )
    back = from_rpc_error(caught)
    assert isinstance(back, errors.NotFound)
    assert (back.reason, back.metadata) == (Reason.QUEUE_NOT_FOUND, {"queue": "q"})


def test_rpc_error_without_details() -> None:
    back = from_rpc_error(FakeRpcError(grpc.StatusCode.UNAVAILABLE, "connection refused", ()))
    assert isinstance(back, errors.Unavailable)
    assert back.message == "connection refused"
    assert back.retryable


def test_a_reset_stream_is_worth_retrying_but_a_fault_of_meshq_is_not() -> None:
    reset = from_rpc_error(FakeRpcError(grpc.StatusCode.INTERNAL, "Stream removed (RST_STREAM)", ()))
    assert isinstance(reset, errors.Unavailable)
    status = to_status(errors.InternalError("a fault"))
    explained = ((STATUS_KEY, status.SerializeToString()),)
    fault = from_rpc_error(FakeRpcError(grpc.StatusCode.INTERNAL, "a fault", explained))
    assert isinstance(fault, errors.InternalError)


def test_bare_rpc_error_becomes_the_base_class() -> None:
    assert type(from_rpc_error(grpc.RpcError())) is MeshqError


def test_unknown_code_keeps_its_code() -> None:
    back = from_status(status_pb2.Status(code=grpc.StatusCode.DATA_LOSS.value[0], message="gone"))
    assert type(back) is MeshqError
    assert back.code is grpc.StatusCode.DATA_LOSS
    assert from_status(status_pb2.Status(code=99, message="?")).code is grpc.StatusCode.UNKNOWN


def test_foreign_details_do_no_harm() -> None:
    foreign = error_details_pb2.ErrorInfo(
        reason="INVALID_FIELD", domain="example.com", metadata={"message": "m", "retry_delay": "r"}
    )
    newer = error_details_pb2.ErrorInfo(reason="FROM_THE_FUTURE", domain=errors.DOMAIN)
    unknown = any_pb2.Any(type_url="type.googleapis.com/example.Unknown", value=b"\xff")
    for detail in (packed(foreign), packed(newer), unknown):
        status = status_pb2.Status(
            code=grpc.StatusCode.UNAVAILABLE.value[0], message="away", details=[detail]
        )
        back = from_status(status)
        assert isinstance(back, errors.Unavailable)
        assert back.message == "away"
        assert back.reason == errors.Unavailable.default_reason


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_what_may_be_retried_is_said_by_the_class(cls: type[MeshqError]) -> None:
    transient = {"Overloaded", "Aborted", "Unavailable", "DeadlineExceeded"}
    assert cls.retryable is (cls.__name__ in transient)
