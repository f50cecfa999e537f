"""Routes of the gateway's Envoy: the public services, reflection and health, and the console.

The transcoder turns a REST call into the gRPC call and has its route chosen anew, so every route here
is one by gRPC path. What has none goes nowhere, which Envoy answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2

from meshq.contract.metadata import EDGE as EDGE_KEY
from meshq.contract.metadata import REQUEST_ID
from meshq.contract.status import STATUS_KEY, packed
from meshq.mesh.contract_methods import PUBLIC, Method, methods_of
from meshq.registry.policy import Policy
from meshq.registry.resources.clusters import seconds
from meshq.registry.resources.groups import Groups
from meshq.registry.resources.names import CONSOLE, EDGE, GATEWAY, NOWHERE
from meshq.registry.resources.routes import (
    Route,
    RouteAction,
    Shares,
    exact,
    prefix,
    retry_policy,
    stream_action,
    unary_action,
)

_REFLECTION: Final = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
_HEALTH: Final = "grpc.health.v1.Health"
_CORS: Final = "envoy.filters.http.cors"
_CORS_SECONDS: Final = "7200"

# A call that no instance has begun with can always be sent to another one.
_UNSENT: Final = "connect-failure,refused-stream,reset-before-request"
_REPEATABLE: Final = _UNSENT + ",reset,unavailable,cancelled"
"""A server that stops cancels what has arrived and has not begun."""
_ANOTHER_HOST: Final = "envoy.retry_host_predicates.previous_hosts"
_OTHER_HOST_TRIES: Final = 3


def edge_routes(
    services: Mapping[str, str], groups: Groups, policy: Policy, origins: Sequence[str]
) -> route_pb2.RouteConfiguration:
    """All routes of the edge.

    Args:
        services: The component of each service, internal ones included.
        groups: The clusters of each component.
        policy: Deadlines, retries, and the paths of the console.
        origins: Whose pages may call from a browser; `*` is any.
    """
    host = route_components_pb2.VirtualHost(
        name=EDGE,
        domains=["*"],
        routes=[
            *_gateway_routes(groups),
            *_public_routes(services, groups, policy),
            *_console_routes(policy),
            _last_route(),
        ],
    )
    host.typed_per_filter_config[_CORS].CopyFrom(packed(_cors(origins)))
    return route_pb2.RouteConfiguration(name=EDGE, virtual_hosts=[host])


def _gateway_routes(groups: Groups) -> Iterator[Route]:
    """The gateway's own server knows the descriptors of all public services, and is there itself."""
    shares = groups.shares.get(GATEWAY)
    if shares:
        for service in (*_REFLECTION, _HEALTH):
            yield _route(prefix(service), stream_action(shares))


def _public_routes(services: Mapping[str, str], groups: Groups, policy: Policy) -> Iterator[Route]:
    for service, component in services.items():
        if service.startswith(PUBLIC):
            shares = groups.shares.get(component, [(component, 100)])
            for method in methods_of(service) or ():
                yield from _method_routes(service, method, shares, policy)
            yield _route(prefix(service), _once(shares, policy.deadlines.default, policy))


def _method_routes(service: str, method: Method, shares: Shares, policy: Policy) -> Iterator[Route]:
    deadline = policy.deadlines.of(service, method.name)
    if method.streams:
        yield _route(exact(service, method.name), stream_action(shares))
    elif method.idempotent:
        yield _route(exact(service, method.name), _repeated(shares, deadline, policy))
    else:
        if method.takes_request_id:
            # The request id of the edge stays the same over its retries, and servers take it for the
            # missing one of the request: then the call may be repeated like an idempotent one.
            match = exact(service, method.name)
            match.headers.append(_made_at_edge())
            yield _route(match, _repeated(shares, deadline, policy))
        yield _route(exact(service, method.name), _once(shares, deadline, policy))


def _repeated(shares: Shares, deadline: float, policy: Policy) -> RouteAction:
    return _retrying(unary_action(shares, deadline), policy, _REPEATABLE)


def _once(shares: Shares, deadline: float, policy: Policy) -> RouteAction:
    return _retrying(unary_action(shares, deadline), policy, _UNSENT)


def _retrying(action: RouteAction, policy: Policy, retry_on: str) -> RouteAction:
    # The caller's deadline counts where it names one.
    action.max_stream_duration.grpc_timeout_header_max.CopyFrom(seconds(0))
    if policy.retries.attempts > 1:
        retry = retry_policy(policy.retries, retry_on)
        retry.host_selection_retry_max_attempts = _OTHER_HOST_TRIES
        retry.retry_host_predicate.add(
            name=_ANOTHER_HOST, typed_config=packed(previous_hosts_pb2.PreviousHostsPredicate())
        )
        action.retry_policy.CopyFrom(retry)
    return action


def _made_at_edge() -> route_components_pb2.HeaderMatcher:
    return route_components_pb2.HeaderMatcher(name=EDGE_KEY, string_match=string_pb2.StringMatcher(exact="1"))


def _console_routes(policy: Policy) -> Iterator[Route]:
    action = RouteAction(cluster=CONSOLE)
    action.max_stream_duration.max_stream_duration.CopyFrom(seconds(policy.deadlines.default))
    for path in policy.edge.paths:
        yield _route(route_components_pb2.RouteMatch(path=path), action)
    for begin in policy.edge.prefixes:
        yield _route(route_components_pb2.RouteMatch(prefix=begin), action)


def _last_route() -> Route:
    """What a REST call matches before it is transcoded, and what all else ends at.

    Envoy's CORS filter does nothing without a route, so this is one, to nowhere.
    """
    action = RouteAction(cluster=NOWHERE, cluster_not_found_response_code=RouteAction.NOT_FOUND)
    return _route(route_components_pb2.RouteMatch(prefix="/"), action)


def _route(match: route_components_pb2.RouteMatch, action: RouteAction) -> Route:
    """A route without Envoy's own timeout, which would end calls after 15 s."""
    route = Route(match=match, route=action)
    route.route.timeout.CopyFrom(seconds(0))
    return route


def _cors(origins: Sequence[str]) -> cors_pb2.CorsPolicy:
    exposed = ("grpc-status", "grpc-message", STATUS_KEY, REQUEST_ID)
    return cors_pb2.CorsPolicy(
        allow_origin_string_match=[_origin(origin) for origin in origins],
        allow_methods="GET, POST, DELETE, OPTIONS",
        allow_headers=_ALLOWED_HEADERS,
        expose_headers=", ".join(exposed),
        max_age=_CORS_SECONDS,
    )


_ALLOWED_HEADERS: Final = (
    "content-type, authorization, x-grpc-web, x-user-agent, grpc-timeout, connect-protocol-version, "
    "connect-timeout-ms, x-meshq-tenant, " + REQUEST_ID
)


def _origin(origin: str) -> string_pb2.StringMatcher:
    if origin == "*":
        return string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=".*"))
    return string_pb2.StringMatcher(exact=origin)
