"""Progress and output of running tasks, from what workers send to what watchers get."""

from __future__ import annotations

from time import time

from google.protobuf.timestamp_pb2 import Timestamp

from meshq.execution.model import Checkpoint, Lease
from meshq.internal.v1.progress_service_pb2 import TaskNews
from meshq.v1 import worker_service_pb2 as pb
from meshq.v1.task_pb2 import TaskOutput, TaskProgress


def is_news(progress: pb.LeaseProgress) -> bool:
    """Whether the handler says more than that it lives, or where its next attempt can go on."""
    return progress.HasField("fraction") or bool(progress.message) or progress.HasField("detail")


def checkpoint_of(lease: Lease, progress: pb.LeaseProgress) -> Checkpoint:
    """Where the next attempt can go on."""
    content = progress.checkpoint.SerializeToString()
    return Checkpoint(lease.task_id, lease.attempt, int(time() * 1000), content)


def progress_news(lease: Lease, progress: pb.LeaseProgress, before: TaskProgress | None = None) -> TaskNews:
    """What a handler says about itself; who says nothing of the fraction leaves it as it was `before`."""
    now = Timestamp()
    now.GetCurrentTime()
    fraction = progress.fraction
    if not progress.HasField("fraction") and before is not None and before.attempt == lease.attempt:
        fraction = before.fraction
    found = TaskProgress(attempt=lease.attempt, fraction=fraction, message=progress.message, report_time=now)
    if progress.HasField("detail"):
        found.detail.CopyFrom(progress.detail)
    return TaskNews(task_id=lease.task_id, tenant=lease.tenant, progress=found)


def output_news(lease: Lease, output: pb.LeaseOutput) -> TaskNews:
    """What a handler wrote."""
    found = TaskOutput(attempt=lease.attempt, offset=output.offset, stream=output.stream, chunk=output.chunk)
    return TaskNews(task_id=lease.task_id, tenant=lease.tenant, output=found)
