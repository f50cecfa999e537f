"""The mesh as its users see it: gRPC's own xDS clients, balanced by what the registry tells them."""

import asyncio
import json
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2
from fixtures.mesh import Mesh, mesh, wait_until

from meshq.contract.errors import InvalidRequest
from meshq.contract.status import from_rpc_error
from meshq.local.servers import Etcd
from meshq.mesh.etcd import EtcdClient
from meshq.mesh.registration import Announcement
from meshq.v1 import registry_service_pb2 as pb
from meshq.v1 import registry_service_pb2_grpc as pb_grpc

__all__ = ["mesh"]

CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
ENDPOINTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"


@pytest.fixture
def registry_channel(mesh: Mesh) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(mesh.registry_address) as channel:
        yield channel


def instances(channel: grpc.Channel, component: str = "meshq.management") -> dict[str, str]:
    """The states of the instances, by id."""
    stub: Any = pb_grpc.RegistryServiceStub(channel)
    response = stub.ListInstances(
        pb.ListInstancesRequest(component=component), wait_for_ready=True, timeout=10
    )
    return {item.instance_id: pb.InstanceState.Name(item.state)[15:] for item in response.instances}


def run_etcd(etcd: str, work: Any) -> None:
    async def run() -> None:
        client = EtcdClient([etcd])
        await work(client)
        await client.close()

    asyncio.run(run())


def empty(etcd: str) -> None:
    """Take every key with its lease."""

    async def delete_all(client: EtcdClient) -> None:
        for entry in (await client.get_prefix("meshq.")).entries:
            await client.revoke(entry.lease)

    run_etcd(etcd, delete_all)


def test_a_new_instance_takes_traffic_at_once(mesh: Mesh) -> None:
    mesh.registry()
    mesh.component("a")
    caller = mesh.caller()
    mesh.component("b")
    caller.wait_used("a", "b")
    assert caller.now["failed"] == 0, caller.now


def test_a_registration_is_told_within_100_ms(mesh: Mesh, etcd: str, registry_channel: grpc.Channel) -> None:
    mesh.registry()
    ads = ads_pb2_grpc.AggregatedDiscoveryServiceStub(registry_channel)
    request = discovery_pb2.DiscoveryRequest(
        node=base_pb2.Node(id="client"), type_url=ENDPOINTS, resource_names=["meshq.example"]
    )
    taken: list[float] = []

    async def register(client: EtcdClient) -> None:
        for port in range(1, 8):
            instance = Announcement("meshq.example", f"i-{port}", f"127.0.0.1:{port}")
            begun = time.monotonic()
            await client.put(instance.key, instance.encode())
            await asyncio.to_thread(next, stream)
            taken.append(time.monotonic() - begun)

    done = threading.Event()

    def sent() -> Iterator[discovery_pb2.DiscoveryRequest]:
        yield request
        done.wait()

    stream = ads.StreamAggregatedResources(sent())
    run_etcd(etcd, register)
    done.set()
    assert list(stream) == []
    # The best of some: the machine may be busy with something else.
    assert min(taken) < 0.1, taken


def test_a_goodbye_costs_no_call(mesh: Mesh) -> None:
    mesh.registry()
    mesh.component("a")
    leaving = mesh.component("b")
    caller = mesh.caller(width=8, method="DeleteTask")
    caller.wait_used("a", "b")
    assert leaving.stop() == 0
    caller.wait_used("a")
    assert caller.more(500)["failed"] == 0, caller.now


def test_a_broken_instance_costs_no_idempotent_call(mesh: Mesh) -> None:
    mesh.registry()
    mesh.component("a")
    mesh.component("b", TEST_FAULT="unavailable")
    caller = mesh.caller(width=1)
    state = caller.more(1_000)
    assert state["failed"] == 0, state
    assert set(state["seen"]) == {"a"}


def test_other_calls_are_not_repeated_and_the_instance_is_ejected(mesh: Mesh) -> None:
    mesh.registry()
    mesh.component("a")
    mesh.component("b", TEST_FAULT="unavailable")
    caller = mesh.caller(width=2, method="DeleteTask")
    caller.wait_for(lambda state: state["failed"] > 10)

    def quiet() -> bool:
        before = caller.now["failed"]
        return bool(caller.more(200)["failed"] == before)

    # After enough failures the instance is left out, so that calls succeed again.
    wait_until(quiet, 30)


def test_traffic_goes_on_without_the_registry(mesh: Mesh) -> None:
    registry = mesh.registry()
    mesh.component("a")
    mesh.component("b")
    caller = mesh.caller()
    caller.wait_used("a", "b")
    wait_until(lambda: caller.now["peers"] == ["a", "b"])
    registry.kill()
    caller.more(500)
    caller.wait_used("a", "b")
    again = mesh.registry()
    mesh.component("c")
    caller.wait_used("a", "b", "c")
    wait_until(lambda: caller.now["peers"] == ["a", "b", "c"])
    assert caller.now["failed"] == 0, caller.now
    assert again.problems == []


def test_traffic_goes_on_without_etcd(mesh: Mesh, etcd_server: Etcd) -> None:
    registry = mesh.registry()
    mesh.component("a")
    mesh.component("b")
    caller = mesh.caller()
    caller.wait_used("a", "b")
    etcd_server.kill()
    # Longer than leases and the time that lost instances are kept.
    time.sleep(7)
    caller.wait_used("a", "b")
    etcd_server.start()
    etcd_server.wait_ready()
    mesh.component("c")
    caller.wait_used("a", "b", "c")
    assert caller.now["failed"] == 0, caller.now
    assert registry.problems == []


def test_an_emptied_etcd_loses_nobody(mesh: Mesh, etcd: str, registry_channel: grpc.Channel) -> None:
    mesh.registry()
    components = [mesh.component(name) for name in ("a", "b")]
    for component in components:
        component.wait_logged("registered")
    caller = mesh.caller()
    caller.wait_used("a", "b")
    empty(etcd)
    wait_until(lambda: all(component.times_logged("registered") > 1 for component in components))
    assert instances(registry_channel).keys() == {"a", "b"}
    wait_until(lambda: instances(registry_channel) == {"a": "ACTIVE", "b": "ACTIVE"})
    caller.wait_used("a", "b")
    assert caller.now["failed"] == 0, caller.now


def test_a_new_etcd_and_a_new_registry_lose_nobody(mesh: Mesh, etcd_server: Etcd) -> None:
    registry = mesh.registry()
    for name in ("a", "b"):
        mesh.component(name)
    caller = mesh.caller()
    caller.wait_used("a", "b")
    wait_until(lambda: caller.now["peers"] == ["a", "b"])
    registry.kill()
    etcd_server.kill()
    shutil.rmtree(etcd_server.data)
    etcd_server.start()
    etcd_server.wait_ready()
    mesh.registry()
    caller.more(500)
    assert caller.now["peers"] == ["a", "b"]
    caller.wait_used("a", "b")
    assert caller.now["failed"] == 0, caller.now


def test_a_killed_instance_is_dropped_when_it_fails_its_check(
    mesh: Mesh, registry_channel: grpc.Channel
) -> None:
    registry = mesh.registry()
    mesh.component("a").wait_logged("registered")
    killed = mesh.component("b")
    killed.wait_logged("registered")
    wait_until(lambda: len(instances(registry_channel)) == 2)
    killed.kill()
    wait_until(lambda: instances(registry_channel) == {"a": "ACTIVE"})
    registry.wait_logged("instance is gone")


def test_services_and_instances_are_told(mesh: Mesh, registry_channel: grpc.Channel) -> None:
    mesh.registry()
    mesh.component("a", MESHQ_ZONE="z1", MESHQ_WEIGHT="3")
    wait_until(lambda: instances(registry_channel))
    stub: Any = pb_grpc.RegistryServiceStub(registry_channel)
    services = {item.service: item for item in stub.ListServices(pb.ListServicesRequest()).services}
    assert services["meshq.v1.TaskService"].component == "meshq.management"
    assert services["meshq.v1.TaskService"].instances == 1
    wait_until(lambda: instances(registry_channel, "meshq.registry"))
    (instance,) = stub.ListInstances(pb.ListInstancesRequest(component="meshq.management")).instances
    assert (instance.zone, instance.weight) == ("z1", 3)
    assert abs(instance.register_time.ToSeconds() - time.time()) < 60
    with pytest.raises(grpc.RpcError) as caught:
        stub.ListInstances(pb.ListInstancesRequest(component="x" * 129))
    error = from_rpc_error(caught.value)
    assert isinstance(error, InvalidRequest)
    assert error.message == "component: must be at most 128 characters, not 129"


def test_a_watch_of_instances_follows(mesh: Mesh, registry_channel: grpc.Channel) -> None:
    mesh.registry()
    stub: Any = pb_grpc.RegistryServiceStub(registry_channel)
    watch = stub.WatchInstances(pb.WatchInstancesRequest(component="meshq.management"), timeout=20)
    assert list(next(watch).instances) == []
    component = mesh.component("a")
    while not (frame := next(watch)).instances:
        pass
    assert frame.instances[0].instance_id == "a"
    component.stop()
    while next(watch).instances:
        pass


def test_a_registry_that_stops_sends_its_clients_away(mesh: Mesh, registry_channel: grpc.Channel) -> None:
    registry = mesh.registry()
    stub: Any = pb_grpc.RegistryServiceStub(registry_channel)
    watch = stub.WatchInstances(pb.WatchInstancesRequest())
    next(watch)
    begun = time.monotonic()
    registry.signal(signal.SIGTERM)
    with pytest.raises(grpc.RpcError) as caught:
        list(watch)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert registry.wait() == 0
    assert time.monotonic() - begun < 5


def test_a_registration_that_makes_no_sense_harms_nobody(mesh: Mesh, etcd: str) -> None:
    registry = mesh.registry()
    mesh.component("a")
    caller = mesh.caller()

    async def disturb(client: EtcdClient) -> None:
        await client.put("meshq.management/text", b"not json")
        await client.put("meshq.management/host", json.dumps({"Op": 0, "Addr": "some-host:1"}).encode())
        await client.put("meshq.management/port", json.dumps({"Op": 0, "Addr": "127.0.0.1:0"}).encode())
        await client.put("meshq.other", b"")

    run_etcd(etcd, disturb)
    registry.wait_logged("no registration")
    mesh.component("b")
    caller.wait_used("a", "b")
    assert registry.logged("client refused a configuration") is None


def test_a_refusal_is_logged_with_its_reason(mesh: Mesh, registry_channel: grpc.Channel) -> None:
    registry = mesh.registry()
    mesh.component("a").wait_logged("registered")
    wait_until(lambda: instances(registry_channel))
    requests: list[discovery_pb2.DiscoveryRequest] = []

    def sent() -> Iterator[discovery_pb2.DiscoveryRequest]:
        for _ in range(2):
            wait_until(lambda: requests)
            yield requests.pop(0)

    requests.append(
        discovery_pb2.DiscoveryRequest(
            node=base_pb2.Node(id="client-1"), type_url=CLUSTER, resource_names=["meshq.management"]
        )
    )
    stream = ads_pb2_grpc.AggregatedDiscoveryServiceStub(registry_channel).StreamAggregatedResources(sent())
    # The directory is told a moment before the snapshot that is made of it; the stream says when that came.
    response = next(response for response in stream if response.resources)
    assert len(response.resources) == 1
    refusal = discovery_pb2.DiscoveryRequest(
        type_url=CLUSTER, resource_names=["meshq.management"], response_nonce=response.nonce
    )
    refusal.error_detail.message = "I do not like this"
    requests.append(refusal)
    entry = registry.wait_logged("client refused a configuration")
    assert (entry["node"], entry["reason"]) == ("client-1", "I do not like this")
    stream.cancel()


def test_policy_can_be_changed_by_a_file(mesh: Mesh, tmp_path: Any, registry_channel: grpc.Channel) -> None:
    policy = tmp_path / "mesh.toml"
    policy.write_text("[retries]\nattempts = 1\n")
    mesh.registry(MESHQ_MESH_POLICY=str(policy))
    mesh.component("a")
    mesh.component("b", TEST_FAULT="unavailable")
    caller = mesh.caller(width=1)
    # Nothing is repeated now, so the broken instance is felt.
    caller.wait_for(lambda state: state["failed"] > 2)
