"""The workers of all instances: each instance knows its own, so the others are asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import grpc

from meshq.execution.conversion.workers import merged, polling_worker, session_worker
from meshq.execution.sessions.polls import Polls
from meshq.execution.sessions.sessions import Sessions
from meshq.internal.v1.dispatch_service_pb2 import ListSessionsRequest
from meshq.internal.v1.dispatch_service_pb2_grpc import DispatchServiceStub
from meshq.mesh.telemetry import logger
from meshq.v1 import worker_service_pb2 as pb

_log = logger(__name__)

_ANSWER_SECONDS: Final = 3.0


class Workers:
    """See the module.

    Args:
        instance_id: This instance.
        sessions: Its sessions.
        polls: Its polling workers.
        others: The addresses of the other instances, by id.
        direct: A channel to an address.
    """

    def __init__(
        self,
        instance_id: str,
        sessions: Sessions,
        polls: Polls,
        others: Callable[[], dict[str, str]],
        direct: Callable[[str], grpc.aio.Channel],
    ) -> None:
        self._instance_id = instance_id
        self._sessions = sessions
        self._polls = polls
        self._others = others
        self._direct = direct

    def own(self) -> list[pb.Worker]:
        """The workers of this instance."""
        return [
            *(session_worker(session, self._instance_id) for session in self._sessions.all()),
            *(polling_worker(worker, self._instance_id) for worker in self._polls.workers()),
        ]

    async def all(self) -> list[pb.Worker]:
        """The workers of all instances that answer, by id."""
        others = self._others()
        lists = await asyncio.gather(*(self._ask(name, address) for name, address in others.items()))
        return merged([*self.own(), *(worker for workers in lists for worker in workers)])

    async def _ask(self, name: str, address: str) -> list[pb.Worker]:
        stub = DispatchServiceStub(self._direct(address))
        try:
            response = await stub.ListSessions(ListSessionsRequest(), timeout=_ANSWER_SECONDS)
        except grpc.RpcError as error:
            _log.warning("an instance does not tell its workers", instance=name, reason=str(error.code()))
            return []
        return list(response.workers)
