"""What happens around every served call, in one place.

Errors of `meshq.contract.errors` become `google.rpc.Status` with details; an exception that nobody
foresaw is logged once, with its request id, and answered INTERNAL; callers that went away are
nobody's error. Handlers are wrapped once per method, so that a call costs a few function calls, and a
message of a stream costs nothing.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from time import perf_counter
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError

from meshq.contract.errors import InternalError, InvalidRequest, MeshqError, Unimplemented
from meshq.contract.metadata import REQUEST_ID
from meshq.contract.status import STATUS_KEY, from_rpc_error, to_status
from meshq.mesh.context import ServedCall, current_call
from meshq.mesh.telemetry import MethodMetrics, logger

_log = logger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
Behaviour = Callable[[Any, Context], Any]

_MAX_VIOLATIONS = 16
_MAX_MESSAGE_LENGTH = 1_024
_OWN = "/grpc."
_QUIET_LOOK = 0.02
_INTERNAL = "Something failed inside of meshq; the log has it under request id {}."


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler of a server."""

    def __init__(self) -> None:
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self._active = _Active()

    async def quiet(self) -> None:
        """Return when no call is under way but those to gRPC's own services."""
        while self._active.calls:  # noqa: ASYNC110 - an event would cost every call something
            await asyncio.sleep(_QUIET_LOOK)

    async def unasked(self, seconds: float) -> None:
        """Return when no call has begun for so long, but those to gRPC's own services."""
        begun = -1
        while begun != self._active.begun:
            begun = self._active.begun
            await asyncio.sleep(seconds)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """The wrapped handler of the method."""
        method = handler_call_details.method
        known = self._wrapped.get(method)
        if known is not None:
            return known
        handler = await continuation(handler_call_details)
        if handler is None:
            # Not remembered: callers make up as many names as they like.
            return _unknown(method)
        active = _Active() if method.startswith(_OWN) else self._active
        wrapped = self._wrapped[method] = _wrap(method, handler, active)
        return wrapped


class _Active:
    """Counts the calls under way, and all that have begun."""

    __slots__ = ("begun", "calls")

    def __init__(self) -> None:
        self.begun = 0
        self.calls = 0


def _wrap(
    method: str, handler: grpc.RpcMethodHandler[Any, Any], active: _Active
) -> grpc.RpcMethodHandler[Any, Any]:
    serializer = handler.response_serializer
    if handler.request_streaming:
        deserializer = _refusing(handler.request_deserializer)
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(
                _streaming(method, handler.stream_stream, active), deserializer, serializer
            )
        return grpc.stream_unary_rpc_method_handler(
            _unary(method, handler.stream_unary, "client_stream", active), deserializer, serializer
        )
    deserializer = _marking(handler.request_deserializer)
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(
            _streaming(method, handler.unary_stream, active), deserializer, serializer
        )
    return grpc.unary_unary_rpc_method_handler(
        _unary(method, handler.unary_unary, "unary", active), deserializer, serializer
    )


def _unary(method: str, behaviour: Any, kind: str, active: _Active) -> Behaviour:
    metrics = MethodMetrics(method, kind)

    async def handle(request: Any, context: Context) -> Any:
        call = ServedCall(context, method)
        current_call.set(call)
        metrics.started.inc()
        active.begun += 1
        active.calls += 1
        begun = perf_counter()
        try:
            _refuse_malformed(request)
            response = await behaviour(request, context)
        except BaseException as error:  # noqa: BLE001
            metrics.ended(_code_of(error, context), perf_counter() - begun)
            await _answer(error, call, context)
        finally:
            active.calls -= 1
        metrics.ended("OK", perf_counter() - begun)
        return response

    return handle


def _streaming(method: str, behaviour: Any, active: _Active) -> Behaviour:
    metrics = MethodMetrics(method, "stream")
    serve = behaviour if inspect.iscoroutinefunction(behaviour) else _written(behaviour)

    async def handle(request: Any, context: Context) -> None:
        call = ServedCall(context, method)
        current_call.set(call)
        metrics.started.inc()
        active.begun += 1
        active.calls += 1
        try:
            _refuse_malformed(request)
            await serve(request, context)
        except BaseException as error:  # noqa: BLE001
            metrics.ended(_code_of(error, context), 0.0)
            await _answer(error, call, context)
        finally:
            active.calls -= 1
        metrics.ended("OK", 0.0)

    return handle


def _written(behaviour: Any) -> Callable[[Any, Context], Awaitable[None]]:
    """Write what a handler yields; its generator is closed as soon as the call is over."""

    async def serve(request: Any, context: Context) -> None:
        async with aclosing(behaviour(request, context)) as messages:
            async for message in messages:
                await context.write(message)

    return serve


async def _answer(error: BaseException, call: ServedCall, context: Context) -> NoReturn:
    """End the call with the status that stands for the error."""
    if not isinstance(error, Exception) or isinstance(error, grpc.aio.AbortError) or _is_over(error, context):
        raise error
    if isinstance(error, MeshqError):
        answer = error
    elif isinstance(error, grpc.aio.AioRpcError):
        answer = from_rpc_error(error)
    elif isinstance(error, NotImplementedError):
        answer = _no_method(call.method)
    else:
        _log.error(
            "call failed", method=call.method, exc_info=error, **{"http.request.id": call.request_id()}
        )
        answer = InternalError(_INTERNAL.format(call.request_id()))
    await _abort(answer, call, context)
    raise error


async def _abort(error: MeshqError, call: ServedCall, context: Context) -> None:
    if isinstance(error, InvalidRequest) and len(error.violations) > _MAX_VIOLATIONS:
        # Trailers are small: 8 KiB is what a client takes by default.
        error = InvalidRequest(error.violations[:_MAX_VIOLATIONS], error.reason)
    status = to_status(error)
    status.message = status.message[:_MAX_MESSAGE_LENGTH]
    trailing = ((STATUS_KEY, status.SerializeToString()), (REQUEST_ID, call.request_id()))
    with suppress(grpc.aio.UsageError):
        await context.abort(error.code, status.message, trailing)


def _is_over(error: Exception, context: Context) -> bool:
    """Whether the caller had gone before, and the error says no more than that."""
    return context.done() or isinstance(error, grpc.aio.BaseError | asyncio.InvalidStateError)


def _code_of(error: BaseException, context: Context) -> str:
    if isinstance(error, MeshqError):
        return error.code.name
    if isinstance(error, grpc.aio.AioRpcError):
        return error.code().name
    if isinstance(error, NotImplementedError):
        return "UNIMPLEMENTED"
    if isinstance(error, asyncio.CancelledError):
        remaining = context.time_remaining()
        return "DEADLINE_EXCEEDED" if remaining is not None and remaining <= 0 else "CANCELLED"
    if isinstance(error, grpc.aio.AbortError):
        code: Any = context.code()
        return code.name if isinstance(code, grpc.StatusCode) else "UNKNOWN"
    return "INTERNAL"


def _refuse_malformed(request: object) -> None:
    if request.__class__ is InvalidRequest:
        raise request


def _malformed() -> InvalidRequest:
    return InvalidRequest("the request is not a message of the type that this method takes")


def _marking(deserializer: Any) -> Any:
    """For single requests: what cannot be parsed reaches the wrapper as the error to answer."""

    def parse(data: bytes) -> Any:
        try:
            return deserializer(data)
        except DecodeError:
            return _malformed()

    return parse


def _refusing(deserializer: Any) -> Any:
    """For streams: what cannot be parsed is raised where the handler reads."""

    def parse(data: bytes) -> Any:
        try:
            return deserializer(data)
        except DecodeError as error:
            raise _malformed() from error

    return parse


def _no_method(method: str) -> Unimplemented:
    return Unimplemented(f"There is no method {method[:256]}.")


def _unknown(method: str) -> grpc.RpcMethodHandler[Any, Any]:
    async def handle(_requests: Any, context: Context) -> None:
        await _abort(_no_method(method), ServedCall(context, method), context)

    return grpc.stream_unary_rpc_method_handler(handle)
