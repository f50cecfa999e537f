"""The access log: one line of JSON for each call, in the fields of the Elastic Common Schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import substitution_format_string_pb2
from envoy.extensions.access_loggers.file.v3 import file_pb2
from envoy.extensions.access_loggers.stream.v3 import stream_pb2
from google.protobuf import struct_pb2

from meshq.contract.status import packed
from meshq.gateway.names import COMPONENT

OFF: Final = "off"
STDOUT: Final = "stdout"

_FIELDS: Final = {
    "@timestamp": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
    "log.logger": "access",
    "service.name": COMPONENT,
    "http.request.id": "%REQ(X-REQUEST-ID)%",
    "http.request.method": "%REQ(X-ENVOY-ORIGINAL-METHOD?:METHOD)%",
    "url.path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "rpc.method": "%REQ(:PATH)%",
    "rpc.grpc.status": "%GRPC_STATUS%",
    "http.version": "%PROTOCOL%",
    "http.response.status_code": "%RESPONSE_CODE%",
    "http.request.body.bytes": "%BYTES_RECEIVED%",
    "http.response.body.bytes": "%BYTES_SENT%",
    "event.duration_ms": "%DURATION%",
    "source.address": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "user_agent.original": "%REQ(USER-AGENT)%",
    "server.address": "%UPSTREAM_HOST%",
    "envoy.flags": "%RESPONSE_FLAGS%",
    "envoy.details": "%RESPONSE_CODE_DETAILS%",
}


def access_logs(destination: str) -> Sequence[accesslog_pb2.AccessLog]:
    """The loggers for a destination: `stdout`, a file, or none for `off`."""
    if destination == OFF:
        return ()
    return (
        accesslog_pb2.AccessLog(name="envoy.access_loggers.file", typed_config=packed(_logger(destination))),
    )


def _logger(destination: str) -> stream_pb2.StdoutAccessLog | file_pb2.FileAccessLog:
    fields = struct_pb2.Struct()
    fields.update(_FIELDS)
    log_format = substitution_format_string_pb2.SubstitutionFormatString(json_format=fields)
    if destination == STDOUT:
        return stream_pb2.StdoutAccessLog(log_format=log_format)
    return file_pb2.FileAccessLog(path=destination, log_format=log_format)
