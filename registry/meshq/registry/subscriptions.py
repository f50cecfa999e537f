"""One ADS stream without its I/O: what the client asked for, what it got, what it is owed.

The protocol is xDS v3, state of the world. A client names the resources that it wants of a type; each
response carries all of them that exist. It answers each response by repeating its request with the
response's nonce: with the version when it took it (ACK), with an error when it did not (NACK).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import json_format
from google.protobuf.any_pb2 import Any

from meshq.mesh.telemetry import logger
from meshq.registry.resources.names import CLUSTER, ENDPOINTS, IN_ORDER, LISTENER
from meshq.registry.snapshot import Resources, Snapshot

_log = logger(__name__)

_ENVOY = "envoy"
_MAX_REASON = 2_000
# Types of which a missing resource means that there is none; of the others it means nothing.
_COMPLETE = (LISTENER, CLUSTER)


@dataclass
class _Subscription:
    names: frozenset[str]
    wildcard: bool
    nonce: str = ""
    sent: Mapping[str, Any] = field(default_factory=dict)
    owed: bool = True

    def selected(self, known: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.wildcard:
            return known
        return {name: known[name] for name in sorted(self.names) if name in known}


class Subscriptions:
    """What one client wants.

    Attributes:
        returning: Whether the client knows something from a stream before this one.
        node_id: Who it is, for the log.
    """

    def __init__(self) -> None:
        self.returning = False
        self.node_id = ""
        self._envoy = False
        self._origins: list[str] = []
        self._of_type: dict[str, _Subscription] = {}
        self._nonces = 0

    def take(self, request: discovery_pb2.DiscoveryRequest) -> None:
        """Take a request: a subscription, a change of one, an ACK or a NACK."""
        if request.HasField("node"):
            self._take_node(request)
        known = self._of_type.get(request.type_url)
        if known is None:
            self._subscribe(request)
        elif request.response_nonce == known.nonce:
            self._update(known, request)
        # Else it answers a response before the last one; an answer to the last one will follow.

    def _take_node(self, request: discovery_pb2.DiscoveryRequest) -> None:
        self.node_id = request.node.id
        self._envoy = request.node.user_agent_name == _ENVOY
        metadata = json_format.MessageToDict(request.node.metadata)
        origins = metadata.get("origins")
        found = origins if isinstance(origins, list) else []
        self._origins = [origin for origin in found if isinstance(origin, str)]

    def _subscribe(self, request: discovery_pb2.DiscoveryRequest) -> None:
        names = frozenset(request.resource_names)
        wildcard = request.type_url in _COMPLETE and (not names or "*" in names)
        self._of_type[request.type_url] = _Subscription(names, wildcard)
        self.returning = self.returning or bool(request.version_info)

    def _update(self, known: _Subscription, request: discovery_pb2.DiscoveryRequest) -> None:
        if request.HasField("error_detail"):
            _log.warning(
                "client refused a configuration",
                node=self.node_id,
                type=request.type_url.rpartition(".")[2],
                reason=request.error_detail.message[:_MAX_REASON],
            )
        names = frozenset(request.resource_names)
        if names != known.names:
            # Empty after names means none: only a first request without names means all.
            known.wildcard = known.wildcard and not names
            known.names = names
            known.owed = True

    def due(self, snapshot: Snapshot) -> Iterator[discovery_pb2.DiscoveryResponse]:
        """The responses that the client is owed, in the order in which it has to get them."""
        resources = self._visible(snapshot)
        for type_url in IN_ORDER:
            subscription = self._of_type.get(type_url)
            if subscription is None:
                continue
            selected = subscription.selected(resources.get(type_url, {}))
            if not self._is_due(type_url, subscription, selected):
                continue
            if type_url == CLUSTER:
                self._resend_endpoints()
            yield self._response(type_url, subscription, selected, snapshot.version)

    def _visible(self, snapshot: Snapshot) -> Resources:
        return snapshot.for_envoy(self._origins) if self._envoy else snapshot.grpc

    @staticmethod
    def _is_due(type_url: str, subscription: _Subscription, selected: Mapping[str, Any]) -> bool:
        if not selected and type_url not in _COMPLETE:
            return False
        return subscription.owed or selected != subscription.sent

    def _resend_endpoints(self) -> None:
        """Envoy does not use a changed cluster before it gets its endpoints once more."""
        subscription = self._of_type.get(ENDPOINTS)
        if subscription is not None and self._envoy:
            subscription.owed = True

    def _response(
        self, type_url: str, subscription: _Subscription, selected: Mapping[str, Any], version: str
    ) -> discovery_pb2.DiscoveryResponse:
        self._nonces += 1
        subscription.nonce = str(self._nonces)
        subscription.sent = selected
        subscription.owed = False
        return discovery_pb2.DiscoveryResponse(
            version_info=version,
            resources=list(selected.values()),
            type_url=type_url,
            nonce=subscription.nonce,
        )
