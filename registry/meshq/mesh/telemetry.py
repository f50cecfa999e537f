"""Structured logs in the fields of the Elastic Common Schema, and the metrics of the gRPC server."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any

import grpc
import structlog
from prometheus_client import Counter, Histogram

from meshq.mesh.context import request_id
from meshq.mesh.settings import ProcessSettings

STARTED = Counter("grpc_server_started", "Calls begun.", ["grpc_type", "grpc_service", "grpc_method"])
HANDLED = Counter(
    "grpc_server_handled", "Calls ended.", ["grpc_type", "grpc_service", "grpc_method", "grpc_code"]
)
HANDLING_SECONDS = Histogram(
    "grpc_server_handling_seconds",
    "How long unary calls took.",
    ["grpc_type", "grpc_service", "grpc_method"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)

_NOISY = ("grpc", "asyncio")
_CALLER_CAUSED = (asyncio.CancelledError, asyncio.InvalidStateError, BlockingIOError, grpc.aio.BaseError)


class MethodMetrics:
    """The metrics of one method, looked up once."""

    __slots__ = ("_handled", "_labels", "_ok", "_seconds", "started")

    def __init__(self, method: str, kind: str) -> None:
        service, _, name = method.lstrip("/").rpartition("/")
        self._labels = (kind, service, name)
        self.started = STARTED.labels(*self._labels)
        self._handled: dict[str, Counter] = {}
        self._ok = HANDLED.labels(*self._labels, "OK")
        self._seconds = HANDLING_SECONDS.labels(*self._labels) if kind == "unary" else None

    def ended(self, code: str, seconds: float) -> None:
        """Count a call that ended."""
        if code == "OK":
            self._ok.inc()
        else:
            HANDLED.labels(*self._labels, code).inc()
        if self._seconds is not None:
            self._seconds.observe(seconds)


class _CallerNoise(logging.Filter):
    """Drops what gRPC and asyncio log when a caller went away; the interceptor counts such calls."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(_NOISY) or record.levelno < logging.WARNING:
            return True
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, _CALLER_CAUSED)


def configure_logs(settings: ProcessSettings) -> None:
    """Send all logs of the process, those of libraries included, to stderr in one form."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    level = logging.getLevelName(settings.log_level.upper())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="@timestamp"),
        _Service(settings.component, settings.instance_id),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_CallerNoise())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=_rendering(settings.log_format)
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(capture=True)


def _rendering(log_format: str) -> list[structlog.typing.Processor]:
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if log_format == "console":
        return [remove, _console()]
    return [remove, _elastic_fields, structlog.processors.JSONRenderer()]


def _console() -> structlog.dev.ConsoleRenderer:
    # Plain tracebacks: those with the values of variables show secrets.
    return structlog.dev.ConsoleRenderer(
        timestamp_key="@timestamp",
        colors=sys.stderr.isatty(),
        exception_formatter=structlog.dev.plain_traceback,
    )


class _Service:
    """Adds which process speaks, and for which call."""

    def __init__(self, component: str, instance_id: str) -> None:
        self._component = component
        self._instance_id = instance_id

    def __call__(
        self, _logger: object, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        event["service.name"] = self._component
        event["service.node.name"] = self._instance_id
        call = request_id()
        if call:
            event.setdefault("http.request.id", call)
        return event


_RENAMED = {"event": "message", "level": "log.level", "logger": "log.logger"}


def _elastic_fields(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    fields = {_RENAMED.get(key, key): value for key, value in event.items() if key != "exc_info"}
    error = _exception(event.get("exc_info"))
    if error is not None:
        fields["error.type"] = type(error).__name__
        fields["error.message"] = str(error)
        fields["error.stack_trace"] = "".join(traceback.format_exception(error))
    return fields


def _exception(found: object) -> BaseException | None:
    if isinstance(found, BaseException):
        return found
    if isinstance(found, tuple):
        error: BaseException | None = found[1]
        return error
    return sys.exc_info()[1] if found else None


def logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """The logger of a module. Events are short sentences; facts are keyword arguments."""
    bound: structlog.typing.FilteringBoundLogger = structlog.get_logger(name)
    return bound
