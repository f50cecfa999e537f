"""Progress and output of running tasks, from what workers send to what watchers get."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from meshq.execution.model import Lease
from meshq.internal.v1.progress_service_pb2 import TaskNews
from meshq.v1 import worker_service_pb2 as pb
from meshq.v1.task_pb2 import TaskOutput, TaskProgress


def progress_news(lease: Lease, progress: pb.LeaseProgress) -> TaskNews:
    """What a handler says about itself."""
    now = Timestamp()
    now.GetCurrentTime()
    found = TaskProgress(
        attempt=lease.attempt, fraction=progress.fraction, message=progress.message, report_time=now
    )
    if progress.HasField("detail"):
        found.detail.CopyFrom(progress.detail)
    return TaskNews(task_id=lease.task_id, tenant=lease.tenant, progress=found)


def output_news(lease: Lease, output: pb.LeaseOutput) -> TaskNews:
    """What a handler wrote."""
    found = TaskOutput(attempt=lease.attempt, offset=output.offset, stream=output.stream, chunk=output.chunk)
    return TaskNews(task_id=lease.task_id, tenant=lease.tenant, output=found)
