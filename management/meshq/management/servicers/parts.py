"""What the methods of TaskService work with."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import grpc

from meshq.management.cancel import Canceller
from meshq.management.create import Creator
from meshq.management.delete import Deleter
from meshq.management.ledger import Ledger
from meshq.management.servicers.views import Views
from meshq.management.watch.watchers import Watchers
from meshq.v1 import task_service_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class TaskParts(NamedTuple):
    """The use cases, and the event that is set when the instance stops."""

    ledger: Ledger
    creator: Creator
    canceller: Canceller
    deleter: Deleter
    watchers: Watchers
    views: Views
    stopping: asyncio.Event


class TaskMethods(task_service_pb2_grpc.TaskServiceServicer):
    """Some of the methods; `meshq.management.servicers.tasks` has them all."""

    _parts: TaskParts
