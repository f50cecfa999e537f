"""Where protobuf and the client's own types meet; nothing else in the client reads a message."""

from __future__ import annotations

import datetime as dt
import enum

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from meshq.client import models
from meshq.client.values import NotJson, fill_value, from_value
from meshq.contract.errors import InvalidRequest
from meshq.contract.status import from_status
from meshq.v1 import (
    queue_service_pb2,
    registry_service_pb2,
    ring_service_pb2,
    task_pb2,
    task_service_pb2,
    worker_service_pb2,
)

_UTC = dt.UTC
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=_UTC)
_STATES = {
    number: models.TaskState(name.removeprefix("TASK_STATE_")) for name, number in task_pb2.TaskState.items()
}
_STATE_NUMBERS = {state: number for number, state in _STATES.items()}


def fill_task(message: task_pb2.Task, spec: models.TaskSpec, field: str = "task") -> None:
    """Write the specification of a task into an empty message.

    Args:
        message: The message to fill.
        spec: What to write.
        field: The path of the message in its request, for errors.

    Raises:
        InvalidRequest: The payload has no JSON form, or both payload and data are given.
    """
    message.type = spec.type
    if spec.queue is not None:
        message.queue = spec.queue
    _fill_input(message, spec, field)
    if spec.content_type:
        message.content_type = spec.content_type
    if spec.headers:
        message.headers.update(spec.headers)
    if spec.max_attempts is not None:
        _fill_max_attempts(message, spec.max_attempts, field)


def _fill_input(message: task_pb2.Task, spec: models.TaskSpec, field: str) -> None:
    if spec.data is not None:
        if spec.payload is not models.UNSET:
            raise InvalidRequest.field(f"{field}.data", "must not be set together with payload")
        message.data = spec.data
    elif spec.payload is not models.UNSET:
        try:
            fill_value(message.payload, spec.payload)
        except NotJson as error:
            raise InvalidRequest.field(f"{field}.payload{error.path}", error.rule) from None


def _fill_max_attempts(message: task_pb2.Task, count: int, field: str) -> None:
    # The wire's zero means "not given", so that the server could not refuse it.
    if not 1 <= count < 1 << 31:
        raise InvalidRequest.field(f"{field}.max_attempts", f"must be 1 to 100, not {count}")
    message.max_attempts = count


def fill_time(message: Timestamp, time: dt.datetime, field: str) -> None:
    """Write a time; it must be aware, because a naive one means something else on each machine.

    Raises:
        InvalidRequest: The time has no time zone.
    """
    if time.tzinfo is None:
        raise InvalidRequest.field(field, "must have a time zone")
    message.FromDatetime(time)


def state_number(state: models.TaskState) -> task_pb2.TaskState.ValueType:
    """The number of a state on the wire."""
    return _STATE_NUMBERS[state]


def task(message: task_pb2.Task) -> models.Task:
    """A task."""
    return models.Task(
        task_id=message.task_id,
        type=message.type,
        queue=message.queue,
        tenant=message.tenant,
        payload=from_value(message.payload) if message.HasField("payload") else models.UNSET,
        data=message.data if message.HasField("data") else None,
        content_type=message.content_type,
        headers=dict(message.headers),
        max_attempts=message.max_attempts,
        create_time=_time(message, "create_time"),
        state=_STATES.get(message.state, models.TaskState.UNSPECIFIED),
        attempt=message.attempt,
        attempt_start_time=_time(message, "attempt_start_time"),
        end_time=_time(message, "end_time"),
        worker_id=message.worker_id,
        result=from_value(message.result) if message.HasField("result") else None,
        result_data=message.result_data if message.HasField("result_data") else None,
        result_content_type=message.result_content_type,
        error=_task_error(message.error) if message.HasField("error") else None,
        cancel_reason=message.cancel_reason,
        cancel_time=_time(message, "cancel_time"),
    )


def tasks(message: task_service_pb2.ListTasksResponse) -> tuple[models.Task, ...]:
    """One page of tasks."""
    return tuple(task(item) for item in message.tasks)


def found(message: task_service_pb2.BatchGetTasksResponse) -> models.Found:
    """The tasks of a look-up by id."""
    return models.Found(tuple(task(item) for item in message.tasks), tuple(message.missing_task_ids))


def created(index: int, message: task_service_pb2.CreateTaskResult) -> models.Created:
    """What became of one task of a frame."""
    if message.HasField("error"):
        return models.Created(index, None, from_status(message.error))
    return models.Created(index, message.task_id)


def event(message: task_service_pb2.WatchTaskResponse) -> models.TaskEvent | None:
    """An event of a watch; None for what carries no news."""
    kind = message.WhichOneof("event")
    if kind == "task":
        return task(message.task)
    if kind == "progress":
        return _progress(message.progress)
    if kind == "output":
        output = message.output
        return models.TaskOutput(output.attempt, output.offset, output.stream, output.chunk)
    return None


def queue(message: queue_service_pb2.Queue) -> models.Queue:
    """A queue."""
    age = _span(message.oldest_pending_age) if message.HasField("oldest_pending_age") else None
    return models.Queue(
        queue=message.queue,
        tenant=message.tenant,
        create_time=_time(message, "create_time"),
        counts=_queue_counts(message.counts),
        oldest_pending_age=age,
        arrival_rate=message.arrival_rate,
        completion_rate=message.completion_rate,
        complete=message.complete,
    )


def worker(message: worker_service_pb2.Worker) -> models.Worker:
    """A worker."""
    return models.Worker(
        worker_id=message.worker_id,
        tenant=message.tenant,
        mode=models.WorkerMode(_enum_name(message, "mode", models.WorkerMode)),
        state=models.WorkerState(_enum_name(message, "state", models.WorkerState)),
        instance_id=message.instance_id,
        session_id=message.session_id,
        task_types=tuple(message.task_types),
        queues=tuple(message.queues),
        slots=message.slots,
        leases=message.leases,
        labels=dict(message.labels),
        build_id=message.build_id,
        user_agent=message.user_agent,
        connect_time=_time(message, "connect_time"),
        last_seen_time=_time(message, "last_seen_time"),
    )


def services(message: registry_service_pb2.ListServicesResponse) -> tuple[models.Service, ...]:
    """The services of the mesh."""
    return tuple(models.Service(item.service, item.component, item.instances) for item in message.services)


def instances(message: registry_service_pb2.ListInstancesResponse) -> tuple[models.Instance, ...]:
    """The processes of the mesh."""
    return tuple(_instance(item) for item in message.instances)


def ring(message: ring_service_pb2.ListShardsResponse) -> models.Ring:
    """The ring with its shards."""
    return models.Ring(message.ring_version, tuple(_shard(item) for item in message.shards))


def _task_error(message: task_pb2.TaskError) -> models.TaskError:
    return models.TaskError(message.type, message.message, message.traceback)


def _progress(message: task_pb2.TaskProgress) -> models.TaskProgress:
    return models.TaskProgress(
        message.attempt,
        message.fraction,
        message.message,
        from_value(message.detail),
        _time(message, "report_time"),
    )


def _queue_counts(message: queue_service_pb2.QueueCounts) -> models.QueueCounts:
    return models.QueueCounts(
        **{item.name: getattr(message, item.name) for item in message.DESCRIPTOR.fields}
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
        state=models.InstanceState(_enum_name(message, "state", models.InstanceState)),
        register_time=_time(message, "register_time"),
    )


def _shard(message: ring_service_pb2.Shard) -> models.Shard:
    return models.Shard(
        shard=message.shard,
        address=message.address,
        state=models.ShardState(_enum_name(message, "state", models.ShardState)),
        weight=message.weight,
        share=message.share,
        epoch=message.epoch,
        ready=message.ready,
        delayed=message.delayed,
        leased=message.leased,
        used_memory_bytes=message.used_memory_bytes,
    )


def _enum_name(message: Message, field: str, known: type[enum.StrEnum]) -> str:
    """The name without its prefix, `UNSPECIFIED` for what only a newer server knows."""
    enumeration = message.DESCRIPTOR.fields_by_name[field].enum_type
    assert enumeration is not None
    numbers = enumeration.values_by_number
    value = numbers.get(getattr(message, field))
    short = value.name.removeprefix(numbers[0].name.removesuffix("UNSPECIFIED")) if value else ""
    return short if short in known.__members__ else "UNSPECIFIED"


def _time(message: Message, field: str) -> dt.datetime | None:
    if not message.HasField(field):
        return None
    time: Timestamp = getattr(message, field)
    return _EPOCH + dt.timedelta(seconds=time.seconds, microseconds=time.nanos // 1000)


def _span(message: Duration) -> dt.timedelta:
    return dt.timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)
