"""Endpoints: where the instances of a cluster are, and how much each of them takes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from envoy.config.core.v3 import address_pb2, base_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2

from meshq.registry.directory import Instance, dialable
from meshq.registry.resources.clusters import number
from meshq.registry.resources.names import CONSOLE


def endpoints(name: str, instances: Iterable[Instance]) -> endpoint_pb2.ClusterLoadAssignment:
    """The endpoints of a cluster.

    gRPC knows weights of localities only, Envoy those of endpoints too. So the instances of one zone
    and weight are one locality, which weighs as much as they do together: gRPC goes round among
    equals, and both give each instance its share.
    """
    localities: defaultdict[tuple[str, int], list[Instance]] = defaultdict(list)
    for item in instances:
        localities[item.zone, item.weight].append(item)
    return endpoint_pb2.ClusterLoadAssignment(
        cluster_name=name,
        endpoints=[_locality(zone, weight, group) for (zone, weight), group in sorted(localities.items())],
    )


def console_endpoints(instances: Iterable[Instance]) -> endpoint_pb2.ClusterLoadAssignment:
    """The consoles of the gateways."""
    places = sorted({item.console for item in instances if dialable(item.console)})
    locality = endpoint_components_pb2.LocalityLbEndpoints(
        lb_endpoints=[_endpoint(place, 1) for place in places],
        load_balancing_weight=number(1),
    )
    return endpoint_pb2.ClusterLoadAssignment(cluster_name=CONSOLE, endpoints=[locality] if places else [])


def _locality(
    zone: str, weight: int, instances: Sequence[Instance]
) -> endpoint_components_pb2.LocalityLbEndpoints:
    return endpoint_components_pb2.LocalityLbEndpoints(
        locality=base_pb2.Locality(zone=zone, sub_zone=f"weight-{weight}"),
        load_balancing_weight=number(weight * len(instances)),
        lb_endpoints=[_endpoint(item.address, item.weight) for item in instances],
    )


def _endpoint(address: str, weight: int) -> endpoint_components_pb2.LbEndpoint:
    host, _, port = address.rpartition(":")
    place = address_pb2.SocketAddress(address=host.strip("[]"), port_value=int(port))
    return endpoint_components_pb2.LbEndpoint(
        endpoint=endpoint_components_pb2.Endpoint(address=address_pb2.Address(socket_address=place)),
        load_balancing_weight=number(weight),
    )
