"""Recorded attempts as messages."""

from __future__ import annotations

from collections.abc import Iterable

from meshq.contract.limits import MAX_FRAME_BYTES
from meshq.execution.conversion.times import duration_of_ms, timestamp
from meshq.execution.model import Ended, Traits
from meshq.execution.results import Found, Sought
from meshq.internal.v1 import attempt_service_pb2 as pb
from meshq.v1.task_pb2 import Attempt, AttemptOutcome, TaskError
from meshq.v1.worker_service_pb2 import Success


def sought(key: pb.OutcomeKey) -> Sought:
    """The end that a key names; without a queue, as if it had been a plain task."""
    traits = Traits(limit_key=key.limit_key) if key.limit_key else None
    return Sought(key.task_id, key.attempt, f"{key.tenant}/{key.queue}//", traits, key.end_time_ms)


def outcomes_response(found: Found) -> pb.BatchGetOutcomesResponse:
    """The outcomes, cut at the size of a frame."""
    response = pb.BatchGetOutcomesResponse(truncated=not found.complete)
    size = 0
    for (task_id, attempt), ended in found.ends:
        size += len(ended.success or b"") + len(ended.error or b"") + len(task_id)
        if response.outcomes and size > MAX_FRAME_BYTES:
            response.truncated = True
            break
        outcome = response.outcomes.add(
            task_id=task_id, attempt=attempt, outcome=AttemptOutcome.ValueType(ended.outcome)
        )
        if ended.success is not None or ended.outcome == AttemptOutcome.ATTEMPT_OUTCOME_SUCCEEDED:
            outcome.success.CopyFrom(Success.FromString(ended.success or b""))
        if ended.error is not None:
            outcome.error.CopyFrom(TaskError.FromString(ended.error))
    return response


def attempts_response(attempts: Iterable[Ended]) -> pb.ListAttemptsResponse:
    """The attempts of one task."""
    return pb.ListAttemptsResponse(attempts=[_attempt(ended) for ended in attempts])


def _attempt(ended: Ended) -> Attempt:
    return Attempt(
        attempt=ended.attempt,
        outcome=AttemptOutcome.ValueType(ended.outcome),
        worker_id=ended.worker_id,
        start_time=timestamp(ended.start_ms),
        end_time=timestamp(ended.end_ms),
        error=TaskError.FromString(ended.error) if ended.error else None,
        retry_delay=None if ended.retry_ms is None else duration_of_ms(ended.retry_ms),
        non_retryable=ended.non_retryable,
    )
