"""The HTTP filters of the edge, in the order in which a call passes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from envoy.config.core.v3 import extension_pb2
from envoy.extensions.common.matching.v3 import extension_matcher_pb2
from envoy.extensions.filters.common.matcher.action.v3 import skip_action_pb2
from envoy.extensions.filters.http.buffer.v3 import buffer_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.http.grpc_json_transcoder.v3.transcoder_pb2 import (
    GrpcJsonTranscoder as Transcoder,
)
from envoy.extensions.filters.http.grpc_web.v3 import grpc_web_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.type.matcher.v3 import http_inputs_pb2
from google.protobuf.message import Message
from xds.core.v3 import extension_pb2 as core_extension_pb2
from xds.type.matcher.v3 import matcher_pb2

from meshq.contract.limits import MAX_MESSAGE_BYTES
from meshq.contract.status import packed
from meshq.gateway.edge.wrappers import number


def http_filters(services: Sequence[str], descriptors: bytes) -> list[http_connection_manager_pb2.HttpFilter]:
    """CORS first, so that a browser may read refusals, too; then the translations; then the way on.

    Args:
        services: The services that are offered as REST, by full name.
        descriptors: Their encoded descriptor set.
    """
    return [
        _filter("cors", cors_pb2.Cors()),
        _filter("grpc_web", grpc_web_pb2.GrpcWeb()),
        _unless_grpc("buffer", buffer_pb2.Buffer(max_request_bytes=number(MAX_MESSAGE_BYTES))),
        _filter("grpc_json_transcoder", _transcoder(services, descriptors)),
        _filter("router", router_pb2.Router(suppress_envoy_headers=True)),
    ]


def _filter(name: str, config: Message) -> http_connection_manager_pb2.HttpFilter:
    return http_connection_manager_pb2.HttpFilter(
        name=f"envoy.filters.http.{name}", typed_config=packed(config)
    )


def _unless_grpc(name: str, config: Message) -> http_connection_manager_pb2.HttpFilter:
    """A filter that gRPC, whose streams must flow, does not pass; gRPC-Web is gRPC at this point."""
    is_grpc = matcher_pb2.Matcher(
        matcher_tree=matcher_pb2.Matcher.MatcherTree(
            input=core_extension_pb2.TypedExtensionConfig(
                name="content-type",
                typed_config=packed(http_inputs_pb2.HttpRequestHeaderMatchInput(header_name="content-type")),
            ),
            prefix_match_map=matcher_pb2.Matcher.MatcherTree.MatchMap(map={"application/grpc": _SKIP}),
        )
    )
    return _filter(
        name,
        extension_matcher_pb2.ExtensionWithMatcher(
            xds_matcher=is_grpc,
            extension_config=extension_pb2.TypedExtensionConfig(
                name=f"envoy.filters.http.{name}", typed_config=packed(config)
            ),
        ),
    )


_SKIP: Final = matcher_pb2.Matcher.OnMatch(
    action=core_extension_pb2.TypedExtensionConfig(
        name="skip", typed_config=packed(skip_action_pb2.SkipFilter())
    )
)


def _transcoder(services: Sequence[str], descriptors: bytes) -> Transcoder:
    return Transcoder(
        proto_descriptor_bin=descriptors,
        services=services,
        # A REST error has the body that a gRPC error has as its status.
        convert_grpc_status=True,
        print_options=Transcoder.PrintOptions(
            preserve_proto_field_names=True,
            # Zeros, empty lists and false are shown: what is absent then really is.
            always_print_primitive_fields=True,
            stream_newline_delimited=True,
        ),
        request_validation_options=Transcoder.RequestValidationOptions(
            reject_unknown_query_parameters=True, reject_binding_body_field_collisions=True
        ),
        query_param_unescape_plus=True,
        max_request_body_size=number(MAX_MESSAGE_BYTES),
        max_response_body_size=number(MAX_MESSAGE_BYTES),
    )
