"""What the contract says about methods: which stream, which may be retried.

Read from the descriptors of all files of `meshq.v1` and `meshq.internal.v1`, so that a new method needs
no entry anywhere.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Final

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

import meshq.internal.v1
import meshq.v1

PUBLIC: Final = "meshq.v1."
_SUFFIX: Final = "_service_pb2"
_SAFE: Final = (descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS, descriptor_pb2.MethodOptions.IDEMPOTENT)


@dataclass(frozen=True, slots=True)
class Method:
    """One method.

    Attributes:
        name: Such as `CreateTask`.
        streams: Whether either side sends a stream.
        idempotent: Whether it may be repeated as it is.
        takes_request_id: Whether a repeat with the same `request_id` has no further effect.
    """

    name: str
    streams: bool
    idempotent: bool
    takes_request_id: bool


@cache
def methods_of(service: str) -> tuple[Method, ...] | None:
    """The methods of a service, in the order of the contract; None when the contract has no such one."""
    _load()
    try:
        descriptor = descriptor_pool.Default().FindServiceByName(service)
    except KeyError:
        return None
    return tuple(_method(method) for method in descriptor.methods)


def public_services() -> tuple[str, ...]:
    """The full names of all services of `meshq.v1`, sorted."""
    return tuple(sorted(name for name in _load() if name.startswith(PUBLIC)))


def _method(descriptor: MethodDescriptor) -> Method:
    return Method(
        name=descriptor.name,
        streams=descriptor.client_streaming or descriptor.server_streaming,
        idempotent=descriptor.GetOptions().idempotency_level in _SAFE,
        takes_request_id="request_id" in descriptor.input_type.fields_by_name,
    )


@cache
def _load() -> tuple[str, ...]:
    """Import every service file of the contract; returns the names of the services."""
    names: list[str] = []
    for package in (meshq.v1, meshq.internal.v1):
        for found in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            if found.name.endswith(_SUFFIX):
                names.extend(_services(importlib.import_module(found.name)))
    return tuple(names)


def _services(module: ModuleType) -> list[str]:
    services: list[ServiceDescriptor] = list(module.DESCRIPTOR.services_by_name.values())
    return [service.full_name for service in services]
