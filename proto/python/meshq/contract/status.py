"""Errors to `google.rpc.Status` with details, and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from meshq.contract.errors import CLASS_OF_CODE, DOMAIN, FieldViolation, InvalidRequest, MeshqError, Reason

STATUS_KEY = "grpc-status-details-bin"
CODE_OF_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

# Meshq's own INTERNAL comes with its reason. One without comes from the transport: a proxy resets a stream
# like this when the process behind it has died in the middle of an answer.
_UNEXPLAINED = {grpc.StatusCode.INTERNAL: grpc.StatusCode.UNAVAILABLE}


def to_status(error: MeshqError) -> status_pb2.Status:
    """The wire form of an error: code, message, `ErrorInfo`, and what else its class carries."""
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    ]
    if isinstance(error, InvalidRequest) and error.violations:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field=item.field, description=item.rule)
                    for item in error.violations
                ]
            )
        )
    if error.retry_delay is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_delay * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return status_pb2.Status(
        code=error.code.value[0], message=error.message, details=[packed(item) for item in details]
    )


def packed(message: Message) -> any_pb2.Any:
    """The message as an `Any`."""
    box = any_pb2.Any()
    box.Pack(message)
    return box


def from_status(status: status_pb2.Status) -> MeshqError:
    """The error that a status stands for."""
    return _build(CODE_OF_NUMBER.get(status.code, grpc.StatusCode.UNKNOWN), status.message, status.details)


def from_rpc_error(error: grpc.RpcError) -> MeshqError:
    """The error behind what gRPC raised at a client, sync or async."""
    code = error.code() if hasattr(error, "code") else grpc.StatusCode.UNKNOWN
    text = (error.details() if hasattr(error, "details") else "") or str(code)
    trailing: Any = error.trailing_metadata() if hasattr(error, "trailing_metadata") else None
    for key, value in trailing or ():
        if key == STATUS_KEY and isinstance(value, bytes):
            status = status_pb2.Status.FromString(value)
            return _build(code, status.message or text, status.details)
    return _build(_UNEXPLAINED.get(code, code), text, ())


def _build(code: grpc.StatusCode, message: str, details: Iterable[any_pb2.Any]) -> MeshqError:
    info = error_details_pb2.ErrorInfo()
    request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    delay: float | None = None
    for detail in details:
        if detail.Unpack(retry):
            delay = retry.retry_delay.ToNanoseconds() / 1e9
        else:
            _ = detail.Unpack(info) or detail.Unpack(request)
    known = info.domain == DOMAIN and info.reason in Reason.__members__
    reason = Reason(info.reason) if known else None
    cls = CLASS_OF_CODE.get(code, MeshqError)
    violations = [FieldViolation(item.field, item.description) for item in request.field_violations]
    if cls is InvalidRequest:
        built: MeshqError = InvalidRequest(violations or message, reason, retry_delay=delay)
    else:
        built = cls(message, reason, retry_delay=delay)
    built.code = code
    # Not as keywords: what the other side calls its entries must not collide with parameters.
    built.metadata = dict(info.metadata)
    return built
