"""What Envoy answers when it refuses a call itself: the same errors that the servers give.

A gRPC client gets the code and the `google.rpc.Status` with `ErrorInfo` and, where it helps,
`RetryInfo`; a REST client gets the same as JSON, `{"code": ..., "message": ..., "details": [...]}`. A
REST call looks like a gRPC call once the transcoder has rewritten its headers; `x-envoy-original-path`,
which the transcoder sets and `origin` removes from what callers send, tells the two apart.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.accesslog.v3.accesslog_pb2 import AccessLogFilter as Filter
from envoy.config.core.v3 import base_pb2, substitution_format_string_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2
from google.protobuf import json_format, struct_pb2

from meshq.contract import errors
from meshq.contract.limits import MAX_MESSAGE_BYTES
from meshq.contract.status import STATUS_KEY, to_status
from meshq.gateway.edge.origin import ORIGINAL_PATH
from meshq.gateway.edge.wrappers import number

_ENVOYS_WORDS: Final = "%LOCAL_REPLY_BODY%"
_BODY_BYTES: Final = "%REQ(content-length)%"
_RETRY_SECONDS: Final = 1.0
_OVERLOADED: Final = ("UO", "OM", "RL")
_TIMED_OUT: Final = ("UT", "SI", "DT", "UMSDR")
_UNREACHABLE: Final = ("UH", "UF", "UC", "UR", "LR", "NC", "URX", "UPE")


@dataclass(frozen=True)
class Refusal:
    """One way in which Envoy refuses.

    Attributes:
        when: Which of Envoy's own replies it is about.
        error: What to answer.
        http_status: The status of the JSON form; None keeps Envoy's.
    """

    when: Filter
    error: errors.MeshqError
    http_status: int | None = None


def local_replies(services: Sequence[str]) -> http_connection_manager_pb2.LocalReplyConfig:
    """The replies for all ways of refusing; the first that matches counts.

    Args:
        services: The public services. That there is no route to one of them means that nobody serves
            it now; that there is no route to anything else means that there is no such thing.
    """
    config = http_connection_manager_pb2.LocalReplyConfig()
    for refusal in _refusals(services):
        config.mappers.extend((_json_reply(refusal), _grpc_reply(refusal)))
    return config


def _refusals(services: Sequence[str]) -> Iterator[Refusal]:
    overloaded = errors.Overloaded("Too many calls are under way; retry.", retry_delay=_RETRY_SECONDS)
    late = errors.DeadlineExceeded("The call took longer than it may.")
    unavailable = errors.Unavailable(
        "No instance that serves this answers; retry.", retry_delay=_RETRY_SECONDS
    )
    unknown = errors.Unimplemented("There is no such path or method.")
    too_large = f"must be at most {MAX_MESSAGE_BYTES} bytes"
    too_large_by = f"{too_large}, not {_BODY_BYTES}"
    yield Refusal(_all(_status(404), _path_of(services)), unavailable, 503)
    yield Refusal(_status(404), unknown)
    yield Refusal(_flags(_OVERLOADED), overloaded, 429)
    yield Refusal(_flags(_TIMED_OUT), late, 504)
    yield Refusal(_flags(_UNREACHABLE), unavailable, 503)
    yield Refusal(_all(_status(413), _WITH_LENGTH), errors.InvalidRequest.field("body", too_large_by))
    yield Refusal(_status(413), errors.InvalidRequest.field("body", too_large))
    yield Refusal(_status(429), overloaded)
    yield Refusal(_any(_status(408), _status(504)), late)
    yield Refusal(_any(_status(502), _status(503)), unavailable)
    yield Refusal(_status(500, _AT_LEAST), errors.InternalError(_ENVOYS_WORDS))
    # The transcoder reads the query before it rewrites the path, and the body after.
    yield Refusal(_all(_status(400), _TRANSCODED), errors.InvalidRequest.field("body", _ENVOYS_WORDS))
    yield Refusal(_all(_status(400), _WITH_QUERY), errors.InvalidRequest.field("query", _ENVOYS_WORDS))
    yield Refusal(_status(400, _AT_LEAST), errors.InvalidRequest(_ENVOYS_WORDS))


def _json_reply(refusal: Refusal) -> http_connection_manager_pb2.ResponseMapper:
    body = struct_pb2.Struct()
    body.update(json_format.MessageToDict(to_status(refusal.error), preserving_proto_field_name=True))
    return http_connection_manager_pb2.ResponseMapper(
        filter=_all(refusal.when, _REST),
        status_code=number(refusal.http_status) if refusal.http_status else None,
        body_format_override=substitution_format_string_pb2.SubstitutionFormatString(
            json_format=body, content_type="application/json"
        ),
    )


def _grpc_reply(refusal: Refusal) -> http_connection_manager_pb2.ResponseMapper:
    status = to_status(refusal.error)
    if _ENVOYS_WORDS in status.message or _BODY_BYTES in status.message:
        # Details cannot hold what is only known later; Envoy makes a message of its words.
        headers = {"grpc-status": str(status.code)}
        return http_connection_manager_pb2.ResponseMapper(
            filter=refusal.when, headers_to_add=_headers(headers)
        )
    headers = {
        "content-type": "application/grpc",
        "grpc-status": str(status.code),
        "grpc-message": status.message,
        STATUS_KEY: base64.b64encode(status.SerializeToString()).decode().rstrip("="),
    }
    return http_connection_manager_pb2.ResponseMapper(
        filter=refusal.when,
        # A complete answer without a body is what the translation to gRPC-Web leaves as it is.
        status_code=number(200),
        body=base_pb2.DataSource(inline_string=""),
        headers_to_add=_headers(headers),
    )


def _headers(headers: Mapping[str, str]) -> list[base_pb2.HeaderValueOption]:
    return [
        base_pb2.HeaderValueOption(
            header=base_pb2.HeaderValue(key=key, value=value),
            append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
        )
        for key, value in headers.items()
    ]


_EQUAL: Final = accesslog_pb2.ComparisonFilter.EQ
_AT_LEAST: Final = accesslog_pb2.ComparisonFilter.GE


def _status(code: int, op: int = _EQUAL) -> Filter:
    # Envoy wants a key under which the number could be changed at run time; nobody sets it.
    value = base_pb2.RuntimeUInt32(default_value=code, runtime_key="meshq.unset")
    comparison = accesslog_pb2.ComparisonFilter(op=op, value=value)
    return Filter(status_code_filter=accesslog_pb2.StatusCodeFilter(comparison=comparison))


def _flags(flags: Sequence[str]) -> Filter:
    return Filter(response_flag_filter=accesslog_pb2.ResponseFlagFilter(flags=flags))


def _all(*filters: Filter) -> Filter:
    return Filter(and_filter=accesslog_pb2.AndFilter(filters=filters))


def _any(*filters: Filter) -> Filter:
    return Filter(or_filter=accesslog_pb2.OrFilter(filters=filters))


def _request_header(name: str, **how: object) -> Filter:
    matcher = route_components_pb2.HeaderMatcher(name=name, **how)
    return Filter(header_filter=accesslog_pb2.HeaderFilter(header=matcher))


def _path_of(services: Sequence[str]) -> Filter:
    pattern = f"/({'|'.join(map(re.escape, services))})/.*"
    regex = regex_pb2.RegexMatcher(regex=pattern)
    return _request_header(":path", string_match=string_pb2.StringMatcher(safe_regex=regex))


_NOT_GRPC: Final = _request_header(
    "content-type",
    string_match=string_pb2.StringMatcher(prefix="application/grpc"),
    treat_missing_header_as_empty=True,
    invert_match=True,
)
_TRANSCODED: Final = _request_header(ORIGINAL_PATH, present_match=True)
_REST: Final = _any(_NOT_GRPC, _TRANSCODED)
_WITH_LENGTH: Final = _request_header("content-length", present_match=True)
_WITH_QUERY: Final = _request_header(":path", string_match=string_pb2.StringMatcher(contains="?"))
