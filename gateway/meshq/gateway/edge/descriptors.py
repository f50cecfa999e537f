"""The descriptor set by which Envoy translates between REST and gRPC."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.rpc import error_details_pb2


def descriptor_set(services: Iterable[str]) -> descriptor_pb2.FileDescriptorSet:
    """The files of services with all that they import, each before those that import it.

    `google/rpc/error_details.proto` is imported by none of them, yet it is there: the transcoder drops
    an error whole if it does not know the type of one of its details.

    Args:
        services: Full names of services whose generated code was imported.
    """
    pool = descriptor_pool.Default()
    files: dict[str, FileDescriptor] = {}
    for root in (*(pool.FindServiceByName(name).file for name in services), error_details_pb2.DESCRIPTOR):
        _collect(root, files)
    built = descriptor_pb2.FileDescriptorSet()
    for file in files.values():
        file.CopyToProto(built.file.add())
    return built


def _collect(file: FileDescriptor, into: dict[str, FileDescriptor]) -> None:
    if file.name in into:
        return
    for dependency in file.dependencies:
        _collect(dependency, into)
    into[file.name] = file
