"""TLS at the edge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2
from envoy.extensions.transport_sockets.tls.v3.tls_pb2 import CommonTlsContext, DownstreamTlsContext

from meshq.contract.status import packed

_PROTOCOLS: Final = ("h2", "http/1.1")


@dataclass(frozen=True)
class Certificate:
    """What the edge shows callers, as PEM files; Envoy reads both when it starts.

    Attributes:
        chain: The certificate with those that vouch for it.
        key: Its private key.
    """

    chain: Path
    key: Path


def tls_socket(certificate: Certificate) -> base_pb2.TransportSocket:
    """TLS 1.2 and newer, HTTP/2 before HTTP/1."""
    context = DownstreamTlsContext(
        common_tls_context=CommonTlsContext(
            alpn_protocols=_PROTOCOLS,
            tls_params=common_pb2.TlsParameters(
                tls_minimum_protocol_version=common_pb2.TlsParameters.TLSv1_2
            ),
            tls_certificates=[
                common_pb2.TlsCertificate(
                    certificate_chain=base_pb2.DataSource(filename=str(certificate.chain)),
                    private_key=base_pb2.DataSource(filename=str(certificate.key)),
                )
            ],
        )
    )
    return base_pb2.TransportSocket(name="envoy.transport_sockets.tls", typed_config=packed(context))
