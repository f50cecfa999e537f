"""From what a handler returned or raised to the result that is reported."""

from __future__ import annotations

import dataclasses
import time
import traceback
from typing import Any

import pydantic_core
from google.protobuf.duration_pb2 import Duration

from meshq.client.values import NotJson, fill_value
from meshq.contract.limits import (
    MAX_ERROR_MESSAGE_LENGTH,
    MAX_ERROR_TYPE_LENGTH,
    MAX_PAYLOAD_BYTES,
    MAX_REASON_LENGTH,
    MAX_TRACEBACK_LENGTH,
)
from meshq.v1.worker_service_pb2 import Release, Success, TaskResult
from meshq.worker.errors import INVALID_RESULT, RESULT_TOO_LARGE, FinishLater, Snooze, TaskFailure


@dataclasses.dataclass(frozen=True, slots=True)
class Data:
    """A result of bytes with their media type; plain `bytes` have none."""

    data: bytes
    content_type: str = ""


def success(token: bytes, value: Any) -> TaskResult:
    """The result for a returned value: none, bytes, or whatever has a JSON form.

    A value that has no JSON form, or is too large, is reported as a failure.
    """
    result = TaskResult(lease_token=token)
    try:
        _fill(result.success, value)
    except NotJson as error:
        return failure(token, INVALID_RESULT, f"result{error.path}: {error.rule}")
    size = result.ByteSize()
    if size > MAX_PAYLOAD_BYTES and (size := result.success.ByteSize()) > MAX_PAYLOAD_BYTES:
        rule = f"must be at most {MAX_PAYLOAD_BYTES:,} bytes encoded, not {size:,}"
        return failure(token, RESULT_TOO_LARGE, f"result: {rule}")
    return result


def failure(token: bytes, kind: str, message: str, trace: str = "") -> TaskResult:
    """The result for a failure, with its texts cut to what the contract takes."""
    result = TaskResult(lease_token=token)
    error = result.failure.error
    error.type = kind[:MAX_ERROR_TYPE_LENGTH]
    error.message = _text(message)[:MAX_ERROR_MESSAGE_LENGTH]
    if trace:
        # The end of a traceback says most.
        error.traceback = _text(trace).encode()[-MAX_TRACEBACK_LENGTH:].decode("utf-8", "ignore")
    return result


def raised(token: bytes, error: BaseException, no_retry: tuple[type[BaseException], ...] = ()) -> TaskResult:
    """The result for an exception.

    Args:
        token: The lease.
        error: What the handler raised, or returned in the case of an `Ending`.
        no_retry: The exceptions after which another attempt is useless.
    """
    if isinstance(error, Snooze):
        return snooze(token, error)
    if isinstance(error, FinishLater):
        return finish_later(token, error)
    if isinstance(error, TaskFailure):
        return _failure_of_its_own(token, error, no_retry)
    result = failure(token, type(error).__name__, _message(error), _traceback(error))
    result.failure.non_retryable = isinstance(error, no_retry)
    return result


def snooze(token: bytes, wish: Snooze) -> TaskResult:
    """The task is put off."""
    result = TaskResult(lease_token=token)
    _fill_seconds(result.snooze.delay, wish.delay)
    result.snooze.reason = _text(wish.reason)[:MAX_REASON_LENGTH]
    return result


def finish_later(token: bytes, wish: FinishLater) -> TaskResult:
    """The task is left to somebody else."""
    result = TaskResult(lease_token=token)
    _fill_seconds(result.finish_later.timeout, wish.timeout)
    return result


def cancelled(token: bytes, message: str = "") -> TaskResult:
    """The confirmation of a cancellation."""
    result = TaskResult(lease_token=token)
    result.cancelled.message = _text(message)[:MAX_REASON_LENGTH]
    return result


def release(token: bytes, reason: str) -> TaskResult:
    """A task that was never begun goes back."""
    return TaskResult(lease_token=token, release=Release(reason=reason))


def stamp(result: TaskResult, started: float) -> TaskResult:
    """Note when the handler was started, in seconds since the epoch."""
    seconds = int(started)
    result.start_time.seconds = seconds
    result.start_time.nanos = int((started - seconds) * 1e9)
    return result


def now() -> float:
    """The wall clock, for `stamp`."""
    return time.time()


def _fill(message: Success, value: Any) -> None:
    message.SetInParent()
    if value is None:
        return
    if isinstance(value, bytes):
        message.data = value
    elif isinstance(value, Data):
        message.data = value.data
        message.content_type = value.content_type
    else:
        _fill_json(message, value)


def _fill_json(message: Success, value: Any) -> None:
    try:
        fill_value(message.result, value)
    except NotJson as error:
        # Dataclasses, models, dates, sets and the like have a JSON form that pydantic knows.
        try:
            plain = pydantic_core.to_jsonable_python(value)
        except pydantic_core.PydanticSerializationError:
            raise error from None
        message.ClearField("result")
        fill_value(message.result, plain)


def _failure_of_its_own(
    token: bytes, error: TaskFailure, no_retry: tuple[type[BaseException], ...]
) -> TaskResult:
    result = failure(token, error.type or "TaskFailure", error.message)
    result.failure.non_retryable = not error.retryable or isinstance(error, no_retry)
    if error.retry_delay is not None and not result.failure.non_retryable:
        _fill_seconds(result.failure.retry_delay, error.retry_delay)
    return result


def _fill_seconds(message: Duration, seconds: float) -> None:
    message.SetInParent()
    message.FromMicroseconds(round(seconds * 1e6))


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a broken exception must not cost its task the answer
        return "the exception has no text"


def _traceback(error: BaseException) -> str:
    frames = error.__traceback__
    # The first frame is the worker's own call of the handler.
    inner = frames.tb_next if frames else None
    return "".join(traceback.format_exception(type(error), error, inner))


def _text(text: str) -> str:
    """Text without lone surrogates, which protobuf refuses."""
    return text.encode("utf-8", "replace").decode()
