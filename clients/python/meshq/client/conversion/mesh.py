"""Reads workers, the mesh and the ring."""

from __future__ import annotations

from meshq.client import models
from meshq.client.conversion.basics import enum_value, time_of
from meshq.v1 import registry_service_pb2, ring_service_pb2, worker_service_pb2


def worker(message: worker_service_pb2.Worker) -> models.Worker:
    """A worker."""
    return models.Worker(
        worker_id=message.worker_id,
        tenant=message.tenant,
        mode=enum_value(message, "mode", models.WorkerMode),
        state=enum_value(message, "state", models.WorkerState),
        instance_id=message.instance_id,
        session_id=message.session_id,
        task_types=tuple(message.task_types),
        queues=tuple(message.queues),
        slots=message.slots,
        leases=message.leases,
        labels=dict(message.labels),
        build_id=message.build_id,
        user_agent=message.user_agent,
        connect_time=time_of(message, "connect_time"),
        last_seen_time=time_of(message, "last_seen_time"),
    )


def services(message: registry_service_pb2.ListServicesResponse) -> tuple[models.Service, ...]:
    """The services of the mesh."""
    return tuple(models.Service(item.service, item.component, item.instances) for item in message.services)


def instances(message: registry_service_pb2.ListInstancesResponse) -> tuple[models.Instance, ...]:
    """The processes of the mesh."""
    return tuple(_instance(item) for item in message.instances)


def ring(message: ring_service_pb2.ListShardsResponse) -> models.Ring:
    """The ring with its shards."""
    return models.Ring(message.ring_version, tuple(shard(item) for item in message.shards))


def shard(message: ring_service_pb2.Shard) -> models.Shard:
    """A shard."""
    return models.Shard(
        shard=message.shard,
        address=message.address,
        state=enum_value(message, "state", models.ShardState),
        weight=message.weight,
        share=message.share,
        epoch=message.epoch,
        ready=message.ready,
        delayed=message.delayed,
        leased=message.leased,
        used_memory_bytes=message.used_memory_bytes,
        max_memory_bytes=message.max_memory_bytes,
        keys=message.keys,
        operations_per_second=message.operations_per_second,
        tasks_to_move=message.tasks_to_move,
        primary_address=message.primary_address,
    )


def _instance(message: registry_service_pb2.Instance) -> models.Instance:
    return models.Instance(
        component=message.component,
        instance_id=message.instance_id,
        address=message.address,
        admin_address=message.admin_address,
        services=tuple(message.services),
        zone=message.zone,
        version=message.version,
        weight=message.weight,
        state=enum_value(message, "state", models.InstanceState),
        register_time=time_of(message, "register_time"),
        leader=message.leader,
    )
