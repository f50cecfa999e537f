"""Settings of queues, as management sends them."""

from __future__ import annotations

from meshq.contract.errors import InvalidRequest
from meshq.contract.limits import NAME_PATTERN, NAME_RULE
from meshq.execution.conversion.requests import check_count
from meshq.execution.model import Bucket, ShardQueueConfig
from meshq.execution.queues.configs import Configured
from meshq.internal.v1 import dispatch_service_pb2 as pb


def configured_queues(request: pb.ConfigureQueuesRequest) -> list[Configured]:
    """The settings of a request, the latest of each queue; raises `InvalidRequest`."""
    check_count(len(request.queues), "queues")
    latest: dict[str, Configured] = {}
    for index, queue in enumerate(request.queues):
        for name in ("tenant", "queue"):
            if not NAME_PATTERN.fullmatch(getattr(queue, name)):
                raise InvalidRequest.field(f"queues[{index}].{name}", NAME_RULE)
        found = _configured(queue)
        known = latest.get(found.config.scope)
        if known is None or known.config.version < found.config.version:
            latest[found.config.scope] = found
    return list(latest.values())


def decode_queue(encoded: bytes) -> Configured:
    """Settings as they are kept."""
    return _configured(pb.QueueConfig.FromString(encoded))


def _configured(queue: pb.QueueConfig) -> Configured:
    config = ShardQueueConfig(
        scope=f"{queue.tenant}/{queue.queue}",
        version=queue.version,
        paused=queue.paused,
        max_running=queue.max_running,
        max_running_per_key=queue.max_running_per_key,
        rate=_bucket(queue.rate),
        rate_per_key=_bucket(queue.rate_per_key),
    )
    return Configured(queue.tenant, queue.queue, config, queue.SerializeToString())


def _bucket(bucket: pb.TokenBucket) -> Bucket:
    return Bucket(bucket.units, bucket.period_ms, bucket.burst)
