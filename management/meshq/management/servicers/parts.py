"""What the methods of TaskService work with."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import grpc

from meshq.contract.errors import InvalidRequest
from meshq.contract.limits import DEFAULT_RUN_WAIT_SECONDS, MAX_RUN_WAIT_SECONDS
from meshq.management.admission import Admission
from meshq.management.bulk import Bulk
from meshq.management.cancel import Canceller
from meshq.management.conversion.checks import check_duration
from meshq.management.create import Creator
from meshq.management.delete import Deleter
from meshq.management.ledger import Ledger
from meshq.management.model.task import TaskId
from meshq.management.model.validation import Violations
from meshq.management.redrive import Redriver
from meshq.management.servicers.views import Views
from meshq.management.servicers.waiting import Waiting
from meshq.management.update import Updater
from meshq.management.watch.feed import Feed
from meshq.management.watch.watchers import Watchers
from meshq.v1 import task_pb2, task_service_pb2, task_service_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class Attempts(Protocol):
    """Execution, which keeps attempts."""

    async def of_task(self, task_id: TaskId) -> Sequence[task_pb2.Attempt]:
        """The ended attempts of a task, the oldest first."""


class TaskParts(NamedTuple):
    """The use cases, and the event that is set when the instance stops."""

    ledger: Ledger
    creator: Creator
    admission: Admission
    canceller: Canceller
    deleter: Deleter
    bulk: Bulk
    redriver: Redriver
    updater: Updater
    watchers: Watchers
    feed: Feed
    views: Views
    waiting: Waiting
    attempts: Attempts
    stopping: asyncio.Event


class TaskMethods(task_service_pb2_grpc.TaskServiceServicer):
    """Some of the methods; `meshq.management.servicers.tasks` has them all."""

    _parts: TaskParts


def wait_seconds(request: task_service_pb2.RunTaskRequest | task_service_pb2.AwaitTasksRequest) -> float:
    """How long a call is to wait.

    Raises:
        InvalidRequest: The time is out of range.
    """
    if not request.HasField("wait_timeout"):
        return DEFAULT_RUN_WAIT_SECONDS
    violations: Violations = []
    check_duration(violations, "wait_timeout", request.wait_timeout, 0, MAX_RUN_WAIT_SECONDS)
    if violations:
        raise InvalidRequest(violations)
    return request.wait_timeout.seconds + request.wait_timeout.nanos / 1e9
