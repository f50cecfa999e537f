"""Routes of gRPC clients, derived from which component serves which service.

Per service: an exact path for each method that streams, may be retried, or has a deadline of its own,
then the prefix for all others. What is no method of the contract is taken for a stream, since a
stream's cluster promises the least: no deadline, no retry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from envoy.config.listener.v3 import api_listener_pb2, listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2

from meshq.contract.status import packed
from meshq.mesh.contract_methods import Method, methods_of
from meshq.registry.policy import Policy, Retries
from meshq.registry.resources.clusters import ads, number, seconds
from meshq.registry.resources.groups import Groups
from meshq.registry.resources.names import MESH, streams_of

Route: TypeAlias = route_components_pb2.Route
RouteAction: TypeAlias = route_components_pb2.RouteAction

_RETRY_ON: Final = "unavailable,cancelled"
Shares = Sequence[tuple[str, int]]


def mesh_listener() -> listener_pb2.Listener:
    """What `xds:///meshq` asks for first."""
    manager = http_connection_manager_pb2.HttpConnectionManager(
        rds=http_connection_manager_pb2.Rds(config_source=ads(), route_config_name=MESH),
        http_filters=[
            http_connection_manager_pb2.HttpFilter(name="router", typed_config=packed(router_pb2.Router()))
        ],
    )
    return listener_pb2.Listener(
        name=MESH, api_listener=api_listener_pb2.ApiListener(api_listener=packed(manager))
    )


def mesh_routes(services: Mapping[str, str], groups: Groups, policy: Policy) -> route_pb2.RouteConfiguration:
    """The routes of all services.

    Args:
        services: The component of each service.
        groups: The clusters of each component.
        policy: Deadlines and retries.
    """
    routes = [
        route
        for service, component in services.items()
        for route in _service_routes(service, groups.shares.get(component, [(component, 100)]), policy)
    ]
    host = route_components_pb2.VirtualHost(name=MESH, domains=["*"], routes=routes)
    return route_pb2.RouteConfiguration(name=MESH, virtual_hosts=[host])


def _service_routes(service: str, shares: Shares, policy: Policy) -> Iterator[Route]:
    methods = methods_of(service)
    for method in methods or ():
        yield Route(match=exact(service, method.name), route=_action(service, method, shares, policy))
    if methods is None:
        yield Route(match=prefix(service), route=stream_action(shares))
    else:
        yield Route(match=prefix(service), route=unary_action(shares, policy.deadlines.default))


def _action(service: str, method: Method, shares: Shares, policy: Policy) -> RouteAction:
    if method.streams:
        return stream_action(shares)
    action = unary_action(shares, policy.deadlines.of(service, method.name))
    if method.idempotent and policy.retries.attempts > 1:
        action.retry_policy.CopyFrom(retry_policy(policy.retries, _RETRY_ON))
    return action


def exact(service: str, method: str) -> route_components_pb2.RouteMatch:
    """Matches one method."""
    return route_components_pb2.RouteMatch(path=f"/{service}/{method}")


def prefix(service: str) -> route_components_pb2.RouteMatch:
    """Matches all methods of a service."""
    return route_components_pb2.RouteMatch(prefix=f"/{service}/")


def unary_action(shares: Shares, deadline: float) -> RouteAction:
    """To the component's cluster for unary calls, with a bound in time."""
    action = to_clusters(shares)
    action.max_stream_duration.max_stream_duration.CopyFrom(seconds(deadline))
    return action


def stream_action(shares: Shares) -> RouteAction:
    """To the component's cluster for streams, without any bound."""
    action = to_clusters([(streams_of(cluster), share) for cluster, share in shares])
    action.max_stream_duration.max_stream_duration.CopyFrom(seconds(0))
    return action


def to_clusters(shares: Shares) -> RouteAction:
    """To one cluster, or to several by their shares."""
    if len(shares) == 1:
        return RouteAction(cluster=shares[0][0])
    weighted = [
        route_components_pb2.WeightedCluster.ClusterWeight(name=cluster, weight=number(share))
        for cluster, share in shares
    ]
    return RouteAction(weighted_clusters=route_components_pb2.WeightedCluster(clusters=weighted))


def retry_policy(retries: Retries, retry_on: str) -> route_components_pb2.RetryPolicy:
    """Try again on the named conditions."""
    return route_components_pb2.RetryPolicy(
        retry_on=retry_on,
        num_retries=number(retries.attempts - 1),
        retry_back_off=route_components_pb2.RetryPolicy.RetryBackOff(
            base_interval=seconds(retries.base_interval), max_interval=seconds(retries.max_interval)
        ),
    )
