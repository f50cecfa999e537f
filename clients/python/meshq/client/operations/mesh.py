"""The calls of `WorkerService`, `RegistryService` and `RingService` that look at the mesh."""

from __future__ import annotations

from meshq.client import conversion, models
from meshq.client.operations.calls import LIST_PAGE_SIZE, Operation, page_of
from meshq.v1 import registry_service_pb2, ring_service_pb2, worker_service_pb2

_WORKERS = "/meshq.v1.WorkerService/"
_REGISTRY = "/meshq.v1.RegistryService/"
_RING = "/meshq.v1.RingService/"


def list_workers(page_token: str) -> Operation[models.Page[models.Worker]]:
    """Read one page of workers."""
    request = worker_service_pb2.ListWorkersRequest(page_size=LIST_PAGE_SIZE, page_token=page_token)
    answer = worker_service_pb2.ListWorkersResponse
    return Operation(_WORKERS + "ListWorkers", request, answer, page_of("workers", conversion.worker))


def get_worker(worker_id: str) -> Operation[models.Worker]:
    """Read one worker."""
    request = worker_service_pb2.GetWorkerRequest(worker_id=worker_id)
    return Operation(_WORKERS + "GetWorker", request, worker_service_pb2.Worker, conversion.worker)


def list_services() -> Operation[tuple[models.Service, ...]]:
    """Read the services of the mesh."""
    answer = registry_service_pb2.ListServicesResponse
    request = registry_service_pb2.ListServicesRequest()
    return Operation(_REGISTRY + "ListServices", request, answer, conversion.services)


def list_instances(component: str) -> Operation[tuple[models.Instance, ...]]:
    """Read the processes of the mesh."""
    answer = registry_service_pb2.ListInstancesResponse
    request = registry_service_pb2.ListInstancesRequest(component=component)
    return Operation(_REGISTRY + "ListInstances", request, answer, conversion.instances)


def add_shard(name: str, address: str, weight: int) -> Operation[models.Shard]:
    """Take a server into the ring."""
    request = ring_service_pb2.AddShardRequest()
    request.shard.shard, request.shard.address, request.shard.weight = name, address, weight
    return Operation(_RING + "AddShard", request, ring_service_pb2.Shard, conversion.shard)


def update_shard(name: str, address: str | None, weight: int | None) -> Operation[models.Shard]:
    """Change a shard's address or weight."""
    request = ring_service_pb2.UpdateShardRequest()
    request.shard.shard = name
    if address is not None:
        request.shard.address = address
        request.update_mask.paths.append("address")
    if weight is not None:
        request.shard.weight = weight
        request.update_mask.paths.append("weight")
    return Operation(_RING + "UpdateShard", request, ring_service_pb2.Shard, conversion.shard)


def drain_shard(name: str) -> Operation[models.Shard]:
    """Let a shard take no more tasks."""
    request = ring_service_pb2.DrainShardRequest(shard=name)
    return Operation(_RING + "DrainShard", request, ring_service_pb2.Shard, conversion.shard)


def activate_shard(name: str) -> Operation[models.Shard]:
    """Let a shard take tasks again."""
    request = ring_service_pb2.ActivateShardRequest(shard=name)
    return Operation(_RING + "ActivateShard", request, ring_service_pb2.Shard, conversion.shard)


def remove_shard(name: str, *, force: bool) -> Operation[models.Shard]:
    """Take a shard out of the ring. Not repeated: a repetition would answer that there is no such shard."""
    request = ring_service_pb2.RemoveShardRequest(shard=name, force=force)
    return Operation(_RING + "RemoveShard", request, ring_service_pb2.Shard, conversion.shard, safe=False)


def list_shards() -> Operation[models.Ring]:
    """Read the ring."""
    answer = ring_service_pb2.ListShardsResponse
    return Operation(_RING + "ListShards", ring_service_pb2.ListShardsRequest(), answer, conversion.ring)
