"""xDS resources are functions of the instances and the policy."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2

from meshq.registry.directory import Instance
from meshq.registry.policy import Canary, Policy, load_policy
from meshq.registry.resources.names import CLUSTER, ENDPOINTS, LISTENER, ROUTES
from meshq.registry.snapshot import Snapshot, build_snapshot

TASKS = "meshq.v1.TaskService"
LEDGER = "meshq.internal.v1.LedgerService"
MANAGEMENT = "meshq.management"
Route: TypeAlias = route_components_pb2.Route


def instance(name: str, port: int, **facts: object) -> Instance:
    given = {"component": MANAGEMENT, "services": (TASKS, LEDGER), "zone": "z", **facts}
    return Instance(key=name, instance_id=name, address=f"127.0.0.1:{port}", **given)  # type: ignore[arg-type]


GATEWAY = instance("g", 9000, component="meshq.gateway", services=(), console="127.0.0.1:9001")
SERVICES = {TASKS: MANAGEMENT, LEDGER: MANAGEMENT, "foreign.Service": MANAGEMENT}


def snapshot(instances: Sequence[Instance], policy: Policy | None = None) -> Snapshot:
    return build_snapshot("v1", instances, SERVICES, policy or load_policy(None))


def clusters(built: Snapshot, kind: str = "grpc") -> dict[str, cluster_pb2.Cluster]:
    resources = built.grpc if kind == "grpc" else built.for_envoy([])
    return {name: unpacked(any_, cluster_pb2.Cluster) for name, any_ in resources[CLUSTER].items()}


def unpacked(any_: Any, cls: Any) -> Any:
    message = cls()
    assert any_.Unpack(message)
    return message


def assignment(built: Snapshot, name: str) -> endpoint_pb2.ClusterLoadAssignment:
    return unpacked(built.grpc[ENDPOINTS][name], endpoint_pb2.ClusterLoadAssignment)


def ports(built: Snapshot, name: str) -> list[int]:
    return [
        item.endpoint.address.socket_address.port_value
        for locality in assignment(built, name).endpoints
        for item in locality.lb_endpoints
    ]


def mesh(built: Snapshot) -> list[Route]:
    return list(unpacked(built.grpc[ROUTES]["meshq"], route_pb2.RouteConfiguration).virtual_hosts[0].routes)


def edge_host(built: Snapshot, origins: Sequence[str] = ()) -> route_components_pb2.VirtualHost:
    resource = built.for_envoy(list(origins))[ROUTES]["edge"]
    return unpacked(resource, route_pb2.RouteConfiguration).virtual_hosts[0]


def chosen(routes: Sequence[Route], path: str, headers: dict[str, str] | None = None) -> Route:
    """The first route that matches, as a client chooses."""
    for route in routes:
        match = route.match
        by_path = match.path == path if match.path else path.startswith(match.prefix)
        wanted = {item.name: item.string_match.exact for item in match.headers}
        if by_path and wanted.items() <= (headers or {}).items():
            return route
    raise LookupError(path)


def test_listener_leads_to_the_routes() -> None:
    listener = unpacked(snapshot([]).grpc[LISTENER]["meshq"], listener_pb2.Listener)
    manager = unpacked(listener.api_listener.api_listener, http_connection_manager_pb2.HttpConnectionManager)
    assert manager.rds.route_config_name == "meshq"
    assert manager.http_filters[-1].typed_config.type_url.endswith("Router")


def test_unary_calls_and_streams_have_clusters_of_their_own() -> None:
    routes = mesh(snapshot([]))
    assert chosen(routes, f"/{TASKS}/GetTask").route.cluster == MANAGEMENT
    for name in ("WatchTask", "IngestTasks"):
        action = chosen(routes, f"/{TASKS}/{name}").route
        assert action.cluster == f"{MANAGEMENT}.streams"
        assert not action.HasField("retry_policy")
        assert action.max_stream_duration.max_stream_duration.ToSeconds() == 0
    assert chosen(routes, f"/{TASKS}/Unheard").route.cluster == MANAGEMENT
    assert chosen(routes, "/foreign.Service/Anything").route.cluster == f"{MANAGEMENT}.streams"


def test_only_what_is_safe_is_retried() -> None:
    routes = mesh(snapshot([]))
    for path in (f"/{TASKS}/GetTask", f"/{TASKS}/CancelTask", f"/{LEDGER}/ReportAttempts"):
        policy = chosen(routes, path).route.retry_policy
        assert policy.retry_on == "unavailable,cancelled"
        assert policy.num_retries.value == 4
    for name in ("CreateTask", "DeleteTask", "RunTask"):
        assert not chosen(routes, f"/{TASKS}/{name}").route.HasField("retry_policy")


def test_deadlines_are_those_of_the_policy() -> None:
    routes = mesh(snapshot([]))
    bounds = {
        name: chosen(routes, f"/{TASKS}/{name}").route.max_stream_duration.max_stream_duration.ToSeconds()
        for name in ("GetTask", "RunTask")
    }
    assert bounds == {"GetTask": 60, "RunTask": 660}


def test_clusters_are_bounded_as_the_rules_say() -> None:
    built = clusters(snapshot([instance("a", 1)]))
    unary, streams = built[MANAGEMENT], built[f"{MANAGEMENT}.streams"]
    assert unary.outlier_detection.failure_percentage_threshold.value == 85
    assert unary.outlier_detection.max_ejection_percent.value == 50
    assert unary.outlier_detection.enforcing_success_rate.value == 0
    assert unary.circuit_breakers.thresholds[0].max_requests.value == 10_000
    assert not streams.HasField("outlier_detection")
    assert streams.circuit_breakers.thresholds[0].max_requests.value == 1_000_000
    assert unary.eds_cluster_config.service_name == streams.eds_cluster_config.service_name == MANAGEMENT


def test_equal_instances_are_one_locality_with_their_common_weight() -> None:
    built = snapshot([instance("a", 1), instance("b", 2), instance("c", 3, weight=5)])
    found = {
        (item.locality.zone, item.locality.sub_zone): (
            item.load_balancing_weight.value,
            len(item.lb_endpoints),
        )
        for item in assignment(built, MANAGEMENT).endpoints
    }
    assert found == {("z", "weight-1"): (2, 2), ("z", "weight-5"): (5, 1)}


def test_a_component_without_instances_keeps_its_cluster() -> None:
    built = snapshot([])
    assert MANAGEMENT in clusters(built)
    assert ports(built, MANAGEMENT) == []


def test_addresses_that_grpc_would_refuse_are_left_out() -> None:
    bad = Instance(key="x", component=MANAGEMENT, instance_id="x", address="some-host:1")
    assert ports(snapshot([bad, instance("a", 1)]), MANAGEMENT) == [1]


@pytest.mark.parametrize(
    ("versions", "shares"),
    [
        (["1", "2"], {MANAGEMENT: 95, f"{MANAGEMENT}@2": 5}),
        (["1", "1"], {MANAGEMENT: None}),
        (["2", "2"], {f"{MANAGEMENT}@2": None}),
        ([], {MANAGEMENT: None}),
    ],
)
def test_canary_gets_its_share(versions: list[str], shares: dict[str, int | None]) -> None:
    canary = {MANAGEMENT: Canary(version="2", percent=5)}
    policy = load_policy(None).model_copy(update={"canary": canary})
    found = [instance(f"i{n}", n + 1, version=version) for n, version in enumerate(versions)]
    built = snapshot(found, policy)
    action = chosen(mesh(built), f"/{TASKS}/GetTask").route
    weighted = {item.name: item.weight.value for item in action.weighted_clusters.clusters}
    assert (weighted or {action.cluster: None}) == shares
    assert set(shares) <= set(clusters(built))


def test_edge_has_the_public_services_only() -> None:
    routes = edge_host(snapshot([GATEWAY])).routes
    assert chosen(routes, f"/{TASKS}/GetTask").route.cluster == MANAGEMENT
    assert chosen(routes, f"/{TASKS}/WatchTask").route.cluster == f"{MANAGEMENT}.streams"
    for path in (f"/{LEDGER}/ReportAttempts", "/foreign.Service/X", "/v1/tasks"):
        action = chosen(routes, path).route
        assert action.cluster == "unknown"
        assert action.cluster_not_found_response_code == route_components_pb2.RouteAction.NOT_FOUND


def test_edge_repeats_creations_only_under_its_own_request_id() -> None:
    routes = edge_host(snapshot([GATEWAY])).routes
    own = chosen(routes, f"/{TASKS}/CreateTask", {"x-meshq-edge": "1"}).route.retry_policy
    other = chosen(routes, f"/{TASKS}/CreateTask").route.retry_policy
    assert "unavailable,cancelled" in own.retry_on
    assert "unavailable" not in other.retry_on
    assert "connect-failure" in other.retry_on
    delete = chosen(routes, f"/{TASKS}/DeleteTask", {"x-meshq-edge": "1"}).route.retry_policy
    assert "unavailable" not in delete.retry_on


def test_edge_leads_to_reflection_health_and_console() -> None:
    built = snapshot([GATEWAY])
    routes = edge_host(built).routes
    for service in ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"):
        assert chosen(routes, f"/{service}/ServerReflectionInfo").route.cluster == "meshq.gateway.streams"
    assert chosen(routes, "/").route.cluster == "console"
    assert chosen(routes, "/console/app.js").route.cluster == "console"
    console = unpacked(built.for_envoy([])[ENDPOINTS]["console"], endpoint_pb2.ClusterLoadAssignment)
    assert console.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.port_value == 9001


def test_edge_has_none_of_envoys_own_timeouts() -> None:
    for route in edge_host(snapshot([GATEWAY])).routes:
        assert route.route.HasField("timeout")
        assert route.route.timeout.ToSeconds() == 0


def test_origins_are_those_of_the_envoy_that_asks() -> None:
    built = snapshot([GATEWAY])

    def allowed(origins: list[str]) -> list[str]:
        policy = unpacked(
            edge_host(built, origins).typed_per_filter_config["envoy.filters.http.cors"], cors_pb2.CorsPolicy
        )
        return [item.exact or item.safe_regex.regex for item in policy.allow_origin_string_match]

    assert allowed(["https://a.example"]) == ["https://a.example"]
    assert allowed(["*"]) == [".*"]
    assert allowed([]) == []


def test_envoy_speaks_http2_to_instances_and_http1_to_consoles() -> None:
    built = clusters(snapshot([instance("a", 1)]), "envoy")
    assert built[MANAGEMENT].typed_extension_protocol_options
    assert not built["console"].typed_extension_protocol_options
    assert not clusters(snapshot([]))[MANAGEMENT].typed_extension_protocol_options
