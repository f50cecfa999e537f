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


def list_shards() -> Operation[models.Ring]:
    """Read the ring."""
    answer = ring_service_pb2.ListShardsResponse
    return Operation(_RING + "ListShards", ring_service_pb2.ListShardsRequest(), answer, conversion.ring)
