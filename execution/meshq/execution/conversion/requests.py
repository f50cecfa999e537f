"""What workers ask for, checked against the rules of the contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from meshq.contract.errors import InvalidRequest, PreconditionFailed, Reason, shown
from meshq.contract.limits import (
    DEFAULT_PAGE_SIZE,
    DEFAULT_POLL_LEASE_SECONDS,
    DEFAULT_POLL_WAIT_SECONDS,
    DEFAULT_QUEUE,
    DEFAULT_TENANT,
    MAX_CHECKPOINT_BYTES,
    MAX_FRAME_ITEMS,
    MAX_LABEL_KEY_LENGTH,
    MAX_LABEL_VALUE_LENGTH,
    MAX_LABELS,
    MAX_NAME_LENGTH,
    MAX_OUTPUT_CHUNK_BYTES,
    MAX_OUTPUT_STREAM_LENGTH,
    MAX_PAGE_SIZE,
    MAX_POLL_LEASE_SECONDS,
    MAX_POLL_WAIT_SECONDS,
    MAX_PROGRESS_DETAIL_BYTES,
    MAX_QUEUE_WEIGHT,
    MAX_REASON_LENGTH,
    MAX_WORKER_QUEUES,
    MAX_WORKER_SLOTS,
    MAX_WORKER_TYPES,
    MIN_POLL_LEASE_SECONDS,
    NAME_PATTERN,
    NAME_RULE,
    REQUEST_ID_PATTERN,
    REQUEST_ID_RULE,
)
from meshq.execution.conversion.times import seconds_of
from meshq.execution.sessions.polls import Poll
from meshq.execution.sessions.session import WorkerFacts
from meshq.v1 import worker_service_pb2 as pb

PROTOCOL_VERSION: Final = 1
_MAX_INSTANCE_KEY: Final = 64


def hello_facts(hello: pb.Hello) -> WorkerFacts:
    """The worker that says hello.

    Raises:
        InvalidRequest: A field breaks its rule.
        PreconditionFailed: It speaks another version of the protocol.
    """
    if hello.protocol_version != PROTOCOL_VERSION:
        raise PreconditionFailed(
            f"Protocol version {hello.protocol_version} is not spoken here; this is {PROTOCOL_VERSION}.",
            Reason.PROTOCOL_VERSION,
        )
    _name(hello.worker_id, "hello.worker_id")
    _at_most(len(hello.instance_key), _MAX_INSTANCE_KEY, "hello.instance_key", "bytes")
    _at_most(len(hello.build_id), MAX_NAME_LENGTH, "hello.build_id", "characters")
    _at_most(len(hello.user_agent), MAX_NAME_LENGTH, "hello.user_agent", "characters")
    _at_most(len(hello.held_leases), MAX_WORKER_SLOTS, "hello.held_leases", "tokens")
    _between(hello.slots, 1, MAX_WORKER_SLOTS, "hello.slots")
    return WorkerFacts(
        worker_id=hello.worker_id,
        tenant=DEFAULT_TENANT,
        task_types=_names(hello.task_types, MAX_WORKER_TYPES, "hello.task_types", least=1),
        queues=_names(hello.queues, MAX_WORKER_QUEUES, "hello.queues") or (DEFAULT_QUEUE,),
        slots=hello.slots,
        instance_key=hello.instance_key,
        build_id=hello.build_id,
        user_agent=hello.user_agent,
        labels=_labels(hello.labels),
        capabilities=frozenset(hello.capabilities),
        queue_weights=_weights(hello.queue_weights, hello.queues, "hello."),
    )


def poll_of(request: pb.PollTasksRequest) -> Poll:
    """What a poll asks for; raises `InvalidRequest`."""
    _name(request.worker_id, "worker_id")
    facts = WorkerFacts(
        worker_id=request.worker_id,
        tenant=DEFAULT_TENANT,
        task_types=_names(request.task_types, MAX_WORKER_TYPES, "task_types", least=1),
        queues=_names(request.queues, MAX_WORKER_QUEUES, "queues") or (DEFAULT_QUEUE,),
        queue_weights=_weights(request.queue_weights, request.queues, ""),
    )
    if request.request_id and not REQUEST_ID_PATTERN.fullmatch(request.request_id):
        rule = f"{REQUEST_ID_RULE}, not {shown(request.request_id)}"
        raise InvalidRequest.field("request_id", rule)
    max_tasks = request.max_tasks or 1
    _between(max_tasks, 1, MAX_FRAME_ITEMS, "max_tasks")
    wait, lease = DEFAULT_POLL_WAIT_SECONDS, DEFAULT_POLL_LEASE_SECONDS
    if request.HasField("wait_timeout"):
        wait = seconds_of(request.wait_timeout, 0.0, MAX_POLL_WAIT_SECONDS, "wait_timeout")
    if request.HasField("lease_ttl"):
        lease = seconds_of(request.lease_ttl, MIN_POLL_LEASE_SECONDS, MAX_POLL_LEASE_SECONDS, "lease_ttl")
    return Poll(facts, max_tasks, wait, lease, request.request_id)


def polling_worker(worker_id: str) -> WorkerFacts:
    """The worker of a unary call; raises `InvalidRequest`."""
    _name(worker_id, "worker_id")
    return WorkerFacts(worker_id, DEFAULT_TENANT, (), ())


def check_progress(progress: pb.LeaseProgress, field: str) -> None:
    """Raises `InvalidRequest` unless the progress keeps the rules."""
    if progress.HasField("fraction") and not 0 <= progress.fraction <= 1:
        raise InvalidRequest.field(f"{field}.fraction", f"must be 0 to 1, not {progress.fraction}")
    _at_most(len(progress.message), MAX_REASON_LENGTH, f"{field}.message", "characters")
    _at_most(progress.detail.ByteSize(), MAX_PROGRESS_DETAIL_BYTES, f"{field}.detail", "bytes encoded")
    _at_most(progress.checkpoint.ByteSize(), MAX_CHECKPOINT_BYTES, f"{field}.checkpoint", "bytes encoded")


def check_output(output: pb.LeaseOutput, field: str) -> None:
    """Raises `InvalidRequest` unless the output keeps the rules."""
    if output.offset < 0:
        raise InvalidRequest.field(f"{field}.offset", f"must not be negative, not {output.offset}")
    _at_most(len(output.stream), MAX_OUTPUT_STREAM_LENGTH, f"{field}.stream", "characters")
    _at_most(len(output.chunk), MAX_OUTPUT_CHUNK_BYTES, f"{field}.chunk", "bytes")


def check_count(count: int, field: str, *, least: int = 0) -> None:
    """Raises `InvalidRequest` unless there are as many items as a call may have."""
    if not least <= count <= MAX_FRAME_ITEMS:
        raise InvalidRequest.field(field, f"must have {least} to {MAX_FRAME_ITEMS} items, not {count}")


def page_size(value: int) -> int:
    """The size of a page; raises `InvalidRequest`."""
    if not 0 <= value <= MAX_PAGE_SIZE:
        raise InvalidRequest.field("page_size", f"must be 1 to {MAX_PAGE_SIZE}, not {value}")
    return value or DEFAULT_PAGE_SIZE


def page_token(value: str) -> str:
    """The worker after whom a page begins; raises `InvalidRequest`."""
    if value and not NAME_PATTERN.fullmatch(value):
        rule = f"must be the next_page_token of the page before, not {shown(value)}"
        raise InvalidRequest.field("page_token", rule)
    return value


def _name(value: str, field: str) -> None:
    if not NAME_PATTERN.fullmatch(value):
        raise InvalidRequest.field(field, f"{NAME_RULE}, not {shown(value)}")


def _names(values: Sequence[str], most: int, field: str, *, least: int = 0) -> tuple[str, ...]:
    if not least <= len(values) <= most:
        raise InvalidRequest.field(field, f"must have {least} to {most} entries, not {len(values)}")
    for index, value in enumerate(values):
        _name(value, f"{field}[{index}]")
    return tuple(dict.fromkeys(values))


def _weights(weights: Mapping[str, int], queues: Sequence[str], path: str) -> dict[str, int]:
    for queue, weight in weights.items():
        if queue not in (queues or (DEFAULT_QUEUE,)):
            rule = f"must weigh queues that are served, not {shown(queue)}"
            raise InvalidRequest.field(f"{path}queue_weights", rule)
        _between(weight, 1, MAX_QUEUE_WEIGHT, f"{path}queue_weights[{queue!r}]")
    return dict(weights)


def _labels(labels: Mapping[str, str]) -> dict[str, str]:
    _at_most(len(labels), MAX_LABELS, "hello.labels", "entries")
    for key, value in labels.items():
        if not 0 < len(key) <= MAX_LABEL_KEY_LENGTH:
            rule = f"keys must have 1 to {MAX_LABEL_KEY_LENGTH} characters, not {len(key)}: {shown(key)}"
            raise InvalidRequest.field("hello.labels", rule)
        _at_most(len(value), MAX_LABEL_VALUE_LENGTH, f"hello.labels[{key!r}]", "characters")
    return dict(labels)


def _at_most(value: int, most: int, field: str, unit: str) -> None:
    if value > most:
        raise InvalidRequest.field(field, f"must be at most {most} {unit}, not {value}")


def _between(value: int, least: int, most: int, field: str) -> None:
    if not least <= value <= most:
        raise InvalidRequest.field(field, f"must be {least} to {most}, not {value}")
