"""One ADS stream: what is sent, in which order, and what an answer to it means."""

from collections.abc import Sequence

import pytest
import structlog.testing
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2

from meshq.registry.directory import Instance
from meshq.registry.policy import load_policy
from meshq.registry.resources.names import CLUSTER, ENDPOINTS, LISTENER, ROUTES
from meshq.registry.snapshot import Snapshot, build_snapshot
from meshq.registry.subscriptions import Subscriptions

MANAGEMENT = "meshq.management"


def snapshot(version: str, *found_ports: int) -> Snapshot:
    instances = [
        Instance(key=str(port), component=MANAGEMENT, instance_id=str(port), address=f"127.0.0.1:{port}")
        for port in found_ports
    ]
    return build_snapshot(version, instances, {"meshq.v1.TaskService": MANAGEMENT}, load_policy(None))


class Client:
    def __init__(self, agent: str = "gRPC C-core") -> None:
        self.subscriptions = Subscriptions()
        self.node: base_pb2.Node | None = base_pb2.Node(id="client", user_agent_name=agent)
        self.nonces: dict[str, str] = {}

    def ask(self, type_url: str, names: Sequence[str] = (), *, version: str = "", error: str = "") -> None:
        request = discovery_pb2.DiscoveryRequest(
            type_url=type_url,
            resource_names=names,
            version_info=version,
            response_nonce=self.nonces.get(type_url, ""),
            node=self.node,
        )
        if error:
            request.error_detail.message = error
        self.node = None
        self.subscriptions.take(request)

    def due(self, current: Snapshot) -> list[discovery_pb2.DiscoveryResponse]:
        responses = list(self.subscriptions.due(current))
        self.nonces.update({item.type_url: item.nonce for item in responses})
        return responses


def kinds(responses: Sequence[discovery_pb2.DiscoveryResponse]) -> list[str]:
    return [item.type_url for item in responses]


def test_nothing_is_sent_unasked() -> None:
    assert Client().due(snapshot("1", 1)) == []


def test_a_subscription_is_answered_once() -> None:
    client, current = Client(), snapshot("1", 1)
    client.ask(ENDPOINTS, [MANAGEMENT])
    (response,) = client.due(current)
    assert response.version_info == "1"
    assert response.nonce
    client.ask(ENDPOINTS, [MANAGEMENT], version="1")
    assert client.due(current) == []


def test_all_is_sent_in_the_order_that_breaks_nothing() -> None:
    client = Client()
    client.ask(ROUTES, ["meshq"])
    client.ask(LISTENER, ["meshq"])
    client.ask(ENDPOINTS, [MANAGEMENT])
    client.ask(CLUSTER, [MANAGEMENT])
    assert kinds(client.due(snapshot("1", 1))) == [CLUSTER, ENDPOINTS, LISTENER, ROUTES]


def test_only_what_changed_is_sent() -> None:
    client = Client()
    client.ask(CLUSTER, [MANAGEMENT])
    client.ask(ENDPOINTS, [MANAGEMENT])
    client.due(snapshot("1", 1))
    assert kinds(client.due(snapshot("2", 1, 2))) == [ENDPOINTS]
    assert client.due(snapshot("3", 1, 2)) == []


def test_more_names_are_answered_with_all_of_them() -> None:
    client, current = Client(), snapshot("1", 1)
    client.ask(CLUSTER, [MANAGEMENT])
    client.due(current)
    client.ask(CLUSTER, [MANAGEMENT, f"{MANAGEMENT}.streams"], version="1")
    (response,) = client.due(current)
    assert len(response.resources) == 2


def test_no_names_mean_all_only_at_first() -> None:
    client, current = Client(), snapshot("1", 1)
    client.ask(CLUSTER, [MANAGEMENT])
    client.due(current)
    client.ask(CLUSTER, [], version="1")
    (response,) = client.due(current)
    assert response.resources == []
    other = Client()
    other.ask(CLUSTER, [])
    (response,) = other.due(current)
    assert len(response.resources) == 2
    other.ask(CLUSTER, [], version="1")
    assert other.due(current) == []


def test_unknown_endpoints_are_waited_for() -> None:
    client = Client()
    client.ask(ENDPOINTS, ["meshq.execution"])
    assert client.due(snapshot("1", 1)) == []


def test_endpoints_of_a_component_without_instances_are_sent() -> None:
    client = Client()
    client.ask(ENDPOINTS, [MANAGEMENT])
    assert kinds(client.due(snapshot("1"))) == [ENDPOINTS]


def test_a_refusal_is_logged_with_its_reason_and_not_repeated() -> None:
    client, current = Client(), snapshot("1", 1)
    client.ask(CLUSTER, [MANAGEMENT])
    client.due(current)
    with structlog.testing.capture_logs() as logs:
        client.ask(CLUSTER, [MANAGEMENT], error="no such field")
    assert client.due(current) == []
    (entry,) = logs
    assert entry["log_level"] == "warning"
    assert (entry["node"], entry["type"], entry["reason"]) == ("client", "Cluster", "no such field")


def test_an_answer_to_an_earlier_response_changes_nothing() -> None:
    client, current = Client(), snapshot("1", 1)
    client.ask(ENDPOINTS, [MANAGEMENT])
    client.due(current)
    late = dict(client.nonces)
    client.due(snapshot("2", 1, 2))
    client.nonces = late
    client.ask(ENDPOINTS, [], version="1")
    assert client.due(snapshot("2", 1, 2)) == []


@pytest.mark.parametrize("version", ["", "before"])
def test_who_knows_something_already_is_known_by_its_version(version: str) -> None:
    client = Client()
    client.ask(LISTENER, ["meshq"], version=version)
    assert client.subscriptions.returning == bool(version)


def test_envoy_gets_its_own_resources() -> None:
    client = Client("envoy")
    client.ask(CLUSTER)
    client.ask(ROUTES, ["edge"])
    clusters, routes = client.due(snapshot("1", 1))
    assert len(clusters.resources) == 3
    assert len(routes.resources) == 1


def test_envoy_gets_endpoints_again_after_clusters() -> None:
    client = Client("envoy")
    client.ask(CLUSTER)
    client.ask(ENDPOINTS, [MANAGEMENT])
    client.due(snapshot("1", 1))
    more = build_snapshot(
        "2",
        [Instance(key="1", component=MANAGEMENT, instance_id="1", address="127.0.0.1:1")],
        {"meshq.v1.TaskService": MANAGEMENT, "meshq.v1.WorkerService": "meshq.execution"},
        load_policy(None),
    )
    assert kinds(client.due(more)) == [CLUSTER, ENDPOINTS]
