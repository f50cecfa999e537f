"""What the .proto files promise by annotation and by comment holds together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.api import annotations_pb2
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from meshq.contract.errors import CLASS_OF_CODE, Reason
from meshq.v1 import (
    queue_service_pb2,
    registry_service_pb2,
    ring_service_pb2,
    task_service_pb2,
    worker_service_pb2,
)

PROTO = Path(__file__).resolve().parents[2] / "proto" / "meshq"
FILES = sorted(PROTO.glob("**/*.proto"))
SERVICES = [
    service
    for module in (
        queue_service_pb2,
        registry_service_pb2,
        ring_service_pb2,
        task_service_pb2,
        worker_service_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
]
METHODS = [method for service in SERVICES for method in service.methods]
READS = ("Get", "BatchGet", "List", "Watch", "Count", "Await")


def method_id(method: MethodDescriptor) -> str:
    return f"{method.containing_service.name}.{method.name}"


def http_rule(method: MethodDescriptor) -> Any:
    options = method.GetOptions()
    return options.Extensions[annotations_pb2.http] if options.HasExtension(annotations_pb2.http) else None


def codes_of_reasons() -> dict[str, str]:
    """The code that the comment of each reason names."""
    text = (PROTO / "v1" / "error_reason.proto").read_text()
    pairs = re.findall(r"// ([A-Z_]+): .*(?:\n +//.*)*\n +ERROR_REASON_([A-Z_]+) =", text)
    return {reason: code for code, reason in pairs}


def test_all_services_are_looked_at() -> None:
    written = {
        name
        for path in (PROTO / "v1").glob("*.proto")
        for name in re.findall(r"^service (\w+)", path.read_text(), re.MULTILINE)
    }
    assert {service.name for service in SERVICES} == written


@pytest.mark.parametrize("method", METHODS, ids=method_id)
def test_rest_reaches_every_method_without_a_client_stream(method: MethodDescriptor) -> None:
    rule = http_rule(method)
    if method.client_streaming:
        assert rule is None, "a client stream has no form in REST"
        return
    assert rule is not None, "no google.api.http annotation"
    verb = rule.WhichOneof("pattern")
    path = getattr(rule, verb)
    assert path.startswith("/v1/")
    for field in re.findall(r"\{(\w+)\}", path):
        assert field in method.input_type.fields_by_name, f"{path} names no field"
    if rule.body not in {"", "*"}:
        assert rule.body in method.input_type.fields_by_name
    assert bool(rule.body) is (verb in {"post", "put", "patch"})


def test_no_two_methods_share_a_path() -> None:
    taken = [
        (rule.WhichOneof("pattern"), re.sub(r"\{\w+\}", "{}", getattr(rule, rule.WhichOneof("pattern"))))
        for method in METHODS
        if (first := http_rule(method)) is not None
        for rule in (first, *first.additional_bindings)
    ]
    assert len(taken) == len(set(taken))


@pytest.mark.parametrize("method", METHODS, ids=method_id)
def test_reads_are_marked_and_only_they(method: MethodDescriptor) -> None:
    level = method.GetOptions().idempotency_level
    reads = method.name.startswith(READS)
    assert (level == MethodOptions.NO_SIDE_EFFECTS) is reads
    rule = http_rule(method)
    if rule is not None and rule.get:
        assert level == MethodOptions.NO_SIDE_EFFECTS, "GET must change nothing"


@pytest.mark.parametrize("method", METHODS, ids=method_id)
def test_what_is_repeatable_by_request_id_is_not_marked_idempotent(method: MethodDescriptor) -> None:
    if "request_id" in method.input_type.fields_by_name:
        assert method.GetOptions().idempotency_level == MethodOptions.IDEMPOTENCY_UNKNOWN


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_error_lines_name_a_code_and_a_reason_that_belong_together(path: Path) -> None:
    expected = codes_of_reasons()
    for code, reason in re.findall(r"\b([A-Z_]{5,})/([A-Z_]{5,})\b", path.read_text()):
        assert reason in Reason.__members__, f"{code}/{reason}"
        assert expected[reason] == code, f"{code}/{reason}"


def test_every_reason_names_a_code_that_a_class_stands_for() -> None:
    codes = codes_of_reasons()
    assert set(codes) == set(Reason.__members__)
    known = {code.name for code in CLASS_OF_CODE}
    assert set(codes.values()) <= known


def test_default_reasons_have_the_code_of_their_class() -> None:
    codes = codes_of_reasons()
    for code, cls in CLASS_OF_CODE.items():
        assert grpc.StatusCode[codes[cls.default_reason]] is code


@pytest.mark.parametrize("method", METHODS, ids=method_id)
def test_lists_page_in_the_same_way(method: MethodDescriptor) -> None:
    if "page_token" in method.input_type.fields_by_name:
        assert "page_size" in method.input_type.fields_by_name
        assert "next_page_token" in method.output_type.fields_by_name
