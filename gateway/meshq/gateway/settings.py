"""The settings of the gateway."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, FilePath, ValidationInfo, field_validator

from meshq.gateway.names import COMPONENT
from meshq.mesh.settings import Address, CommaSeparated, ProcessSettings

_MAX_WORKERS = 4


class GatewaySettings(ProcessSettings):
    """What the gateway has beside the settings of every process."""

    component: ClassVar[str] = COMPONENT

    gateway_listen: Address = "127.0.0.1:8080"
    """The edge: gRPC, gRPC-Web and REST on one port; port 0 takes a free one."""
    gateway_origins: CommaSeparated = ("*",)
    """The origins whose pages may call from a browser; `*` is any."""
    gateway_tls_certificate: FilePath | None = None
    """A PEM file with the certificate chain; with it the edge speaks TLS only."""
    gateway_tls_key: FilePath | None = None
    """A PEM file with the private key of the certificate."""
    gateway_access_log: str = "stdout"
    """Where Envoy writes a line of JSON for each call: `stdout`, a file, or `off`."""
    gateway_workers: Annotated[int, Field(ge=1, le=256)] = min(os.cpu_count() or 1, _MAX_WORKERS)
    """Envoy's worker threads."""
    gateway_max_connections: Annotated[int, Field(ge=1)] = 20_000
    """Connections to the edge at a time; further ones are refused."""
    console_listen: Address = "127.0.0.1:0"
    """Where the console is served over HTTP; port 0 takes a free one."""
    bin_envoy: str | None = None
    """The `envoy` to run; by default one on PATH that is new enough, else the installed wheel's."""

    @field_validator("gateway_tls_key")
    @classmethod
    def _goes_with_the_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if (value is None) != (info.data.get("gateway_tls_certificate") is None):
            raise ValueError("must be set together with MESHQ_GATEWAY_TLS_CERTIFICATE, or neither")
        return value
