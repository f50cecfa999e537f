"""What Envoy is told: the bootstrap, the descriptor set, and how it refuses."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest
from envoy.config.bootstrap.v3.bootstrap_pb2 import Bootstrap
from envoy.config.core.v3 import config_source_pb2
from envoy.extensions.access_loggers.file.v3.file_pb2 import FileAccessLog
from envoy.extensions.access_loggers.stream.v3.stream_pb2 import StdoutAccessLog
from envoy.extensions.filters.http.buffer.v3 import buffer_pb2
from envoy.extensions.filters.http.grpc_json_transcoder.v3.transcoder_pb2 import GrpcJsonTranscoder
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from google.api import annotations_pb2
from google.protobuf import descriptor_pool, json_format
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2, status_pb2

from meshq.contract.limits import MAX_MESSAGE_BYTES, MAX_RUN_WAIT_SECONDS, STREAM_KEEPALIVE_SECONDS
from meshq.contract.metadata import EDGE
from meshq.gateway.edge.access_log import access_logs
from meshq.gateway.edge.bootstrap import EdgeNode, bootstrap
from meshq.gateway.edge.descriptors import descriptor_set
from meshq.gateway.edge.listener import Edge
from meshq.gateway.edge.refusals import local_replies
from meshq.gateway.edge.wrappers import seconds, socket_address
from meshq.gateway.settings import GatewaySettings
from meshq.mesh.contract_methods import public_services
from meshq.mesh.settings import ProcessSettings

NODE = EdgeNode("gateway-1", "zone-a", ("127.0.0.1:7400", "registry.example:7401"), max_connections=77)


def built(**changes: Any) -> Bootstrap:
    services = public_services()
    facts = {
        "listen": "127.0.0.1:8080",
        "services": services,
        "descriptors": descriptor_set(services).SerializeToString(),
        "origins": ("https://a.example",),
        "access_log": "off",
    }
    config = bootstrap(NODE, Edge(**{**facts, **changes}))
    # What Envoy reads is bytes.
    return Bootstrap.FromString(config.SerializeToString())


def manager(config: Bootstrap) -> HttpConnectionManager:
    (listener,) = config.static_resources.listeners
    (chain,) = listener.filter_chains
    (found,) = chain.filters
    unpacked = HttpConnectionManager()
    assert found.typed_config.Unpack(unpacked)
    return unpacked


def transcoder(config: Bootstrap) -> GrpcJsonTranscoder:
    unpacked = GrpcJsonTranscoder()
    (found,) = (item for item in manager(config).http_filters if item.name.endswith("transcoder"))
    assert found.typed_config.Unpack(unpacked)
    return unpacked


def test_the_node_is_the_instance() -> None:
    node = built().node
    assert (node.id, node.cluster, node.locality.zone) == ("gateway-1", "meshq.gateway", "zone-a")
    assert list(node.metadata["origins"]) == ["https://a.example"]


def test_everything_dynamic_comes_over_one_stream_from_the_registry() -> None:
    config = built()
    (cluster,) = config.static_resources.clusters
    endpoints = cluster.load_assignment.endpoints[0].lb_endpoints
    hosts = [item.endpoint.address.socket_address.address for item in endpoints]
    assert (cluster.name, hosts) == ("registry", ["127.0.0.1", "registry.example"])
    ads = config.dynamic_resources.ads_config
    assert ads.api_type == config_source_pb2.ApiConfigSource.GRPC
    assert ads.grpc_services[0].envoy_grpc.cluster_name == "registry"
    assert config.dynamic_resources.cds_config.HasField("ads")
    rds = manager(config).rds
    assert (rds.route_config_name, rds.config_source.HasField("ads")) == ("edge", True)


def test_admin_is_on_loopback_only() -> None:
    address = built().admin.address.socket_address
    assert (address.address, address.port_value) == ("127.0.0.1", 0)


def test_the_filters_are_in_their_order() -> None:
    names = [item.name.removeprefix("envoy.filters.http.") for item in manager(built()).http_filters]
    assert names == ["cors", "grpc_web", "buffer", "grpc_json_transcoder", "router"]


def test_streams_outlive_every_silence_that_is_allowed() -> None:
    idle = manager(built()).stream_idle_timeout.ToSeconds()
    assert idle > MAX_RUN_WAIT_SECONDS > STREAM_KEEPALIVE_SECONDS


def test_rest_reads_as_the_contract_is_written() -> None:
    config = transcoder(built())
    assert list(config.services) == list(public_services())
    assert config.convert_grpc_status
    assert config.print_options.preserve_proto_field_names
    assert config.print_options.always_print_primitive_fields
    assert config.print_options.stream_newline_delimited
    assert config.request_validation_options.reject_unknown_query_parameters
    assert config.max_request_body_size.value == MAX_MESSAGE_BYTES


def test_rest_bodies_are_bounded_and_streams_are_not_held_up() -> None:
    (found,) = (item for item in manager(built()).http_filters if item.name.endswith("buffer"))
    assert "ExtensionWithMatcher" in found.typed_config.type_url
    encoded = buffer_pb2.Buffer(max_request_bytes={"value": MAX_MESSAGE_BYTES}).SerializeToString()
    assert encoded in found.typed_config.value


def test_only_the_edge_says_what_passed_the_edge() -> None:
    (mutation,) = manager(built()).early_header_mutation_extensions
    text = mutation.typed_config.value
    assert EDGE.encode() in text
    assert b"x-envoy-original-path" in text


def test_one_port_belongs_to_one_process() -> None:
    (listener,) = built().static_resources.listeners
    assert listener.HasField("enable_reuse_port")
    assert not listener.enable_reuse_port.value


def test_connections_are_bounded() -> None:
    (monitor,) = built().overload_manager.resource_monitors
    assert "max_active_downstream_connections: 77" in str(monitor) or b"\x08M" in monitor.typed_config.value


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [("127.0.0.1:80", "127.0.0.1", 80), ("[::1]:8080", "::1", 8080), ("registry:7400", "registry", 7400)],
)
def test_addresses(address: str, host: str, port: int) -> None:
    found = socket_address(address).socket_address
    assert (found.address, found.port_value) == (host, port)


def test_parts_of_a_second_are_kept() -> None:
    assert seconds(1.25).ToMilliseconds() == 1_250


def test_the_descriptor_set_stands_alone() -> None:
    found = FileDescriptorSet.FromString(descriptor_set(public_services()).SerializeToString())
    pool = DescriptorPool()
    for file in found.file:
        # Fails if a file is missing, or comes before one that it imports.
        pool.AddSerializedFile(file.SerializeToString())
    for service in public_services():
        assert pool.FindServiceByName(service)


def test_the_descriptor_set_knows_error_details() -> None:
    names = [file.name for file in descriptor_set(public_services()).file]
    assert "google/rpc/error_details.proto" in names
    assert "google/api/annotations.proto" in names


def test_access_log_destinations() -> None:
    assert access_logs("off") == ()
    (stdout,) = access_logs("stdout")
    assert stdout.typed_config.Is(StdoutAccessLog.DESCRIPTOR)
    (file,) = access_logs("/var/log/edge.json")
    unpacked = FileAccessLog()
    assert file.typed_config.Unpack(unpacked)
    assert unpacked.path == "/var/log/edge.json"
    assert unpacked.log_format.json_format["http.request.id"] == "%REQ(X-REQUEST-ID)%"


def refusals() -> list[tuple[dict[str, Any], dict[str, str]]]:
    """The JSON body and the headers of the gRPC form of each refusal."""
    mappers = local_replies(["meshq.v1.TaskService"]).mappers
    return [
        (
            json_format.MessageToDict(rest.body_format_override.json_format),
            {item.header.key: item.header.value for item in grpc.headers_to_add},
        )
        for rest, grpc in zip(mappers[::2], mappers[1::2], strict=True)
    ]


def test_both_forms_of_a_refusal_say_the_same() -> None:
    for body, headers in refusals():
        assert int(headers["grpc-status"]) == body["code"]
        encoded = headers.get("grpc-status-details-bin")
        if encoded is not None:
            status = status_pb2.Status.FromString(base64.b64decode(encoded + "=" * (-len(encoded) % 4)))
            assert (status.code, status.message) == (body["code"], body["message"])
            assert headers["grpc-message"] == body["message"]


def test_every_refusal_names_a_reason() -> None:
    for body, _ in refusals():
        info = body["details"][0]
        assert info["@type"].endswith(error_details_pb2.ErrorInfo.DESCRIPTOR.full_name)
        assert (info["domain"], bool(info["reason"])) == ("meshq", True)


def test_what_goes_away_by_itself_says_when_to_retry() -> None:
    delays = {
        body["details"][0]["reason"]: any("retry_delay" in detail for detail in body["details"])
        for body, _ in refusals()
    }
    assert delays["COMPONENT_UNAVAILABLE"]
    assert delays["OVERLOADED"]
    assert not delays["METHOD_UNKNOWN"]


def test_the_last_refusal_takes_whatever_is_left() -> None:
    last = local_replies(["meshq.v1.TaskService"]).mappers[-1].filter.status_code_filter.comparison
    assert last.value.default_value == 400


def rest_methods() -> set[tuple[str, str]]:
    """Each method with each way to call it, from the annotations of the contract."""
    found = set()
    for service in public_services():
        for method in descriptor_pool.Default().FindServiceByName(service).methods:
            rule = method.GetOptions().Extensions[annotations_pb2.http]
            for binding in (rule, *rule.additional_bindings):
                verb = binding.WhichOneof("pattern")
                if verb is not None:
                    name = f"{service.rpartition('.')[2]}.{method.name}"
                    found.add((name, f"{verb.upper()} {getattr(binding, verb)}"))
    return found


def test_the_page_about_rest_lists_what_there_is() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "rest.md").read_text()
    listed = set(re.findall(r"^\| `(\w+\.\w+)` \| `([A-Z]+ /\S+)` \|", page, re.MULTILINE))
    assert listed == rest_methods()


def test_the_page_about_rest_names_every_setting() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "rest.md").read_text()
    own = GatewaySettings.model_fields.keys() - ProcessSettings.model_fields.keys()
    assert [name for name in own if f"MESHQ_{name.upper()}" not in page] == []
