"""Ends tasks that a handler left to somebody else with `FinishLater`, from any process.

```python
with SyncCompleter("localhost:8080") as completer:
    completer.succeed(lease_token, {"paid": True})
```
"""

from __future__ import annotations

import datetime as dt
from typing import Any, Final, NamedTuple

from meshq.client.async_calls import AsyncCalls
from meshq.client.leases import LeaseLost, LeaseToken, checked_name, completion, token_bytes
from meshq.client.operations import Operation
from meshq.client.retries import CallRetries
from meshq.client.sync_calls import SyncCalls
from meshq.client.values import JsonValue
from meshq.v1 import worker_service_pb2 as pb
from meshq.worker import outcomes
from meshq.worker.context import checkpoint_of, progress_of
from meshq.worker.errors import TaskFailure

HEARTBEAT: Final = "/meshq.v1.WorkerService/HeartbeatTasks"


class CancelRequest(NamedTuple):
    """Somebody wants the task to be cancelled.

    Attributes:
        reason: Why, in their words.
        grace: How long there is to stop.
    """

    reason: str
    grace: dt.timedelta


class _Reports:
    """What there is to say of a task, as calls for both completers."""

    def __init__(self, name: str | None) -> None:
        self._name = checked_name(name)

    def success(self, token: LeaseToken, result: Any) -> Operation[None]:
        made = outcomes.success(token_bytes(token), result)
        if made.HasField("failure"):
            raise ValueError(made.failure.error.message)
        return self._end(made)

    def failure(self, token: LeaseToken, error: TaskFailure) -> Operation[None]:
        return self._end(outcomes.raised(token_bytes(token), error))

    def cancelled(self, token: LeaseToken, message: str) -> Operation[None]:
        return self._end(outcomes.cancelled(token_bytes(token), message))

    def heartbeat(self, token: LeaseToken) -> Operation[CancelRequest | None]:
        request = pb.HeartbeatTasksRequest(worker_id=self._name, lease_tokens=[token_bytes(token)])
        return self._word(request)

    def progress(
        self, token: LeaseToken, fraction: float, message: str, detail: JsonValue
    ) -> Operation[CancelRequest | None]:
        word = progress_of(token_bytes(token), fraction, message, detail)
        return self._word(pb.HeartbeatTasksRequest(worker_id=self._name, progress=[word]))

    def checkpoint(self, token: LeaseToken, value: JsonValue) -> Operation[CancelRequest | None]:
        word = checkpoint_of(token_bytes(token), value)
        return self._word(pb.HeartbeatTasksRequest(worker_id=self._name, progress=[word]))

    def _end(self, result: pb.TaskResult) -> Operation[None]:
        return completion(self._name, result)

    def _word(self, request: pb.HeartbeatTasksRequest) -> Operation[CancelRequest | None]:
        return Operation(HEARTBEAT, request, pb.HeartbeatTasksResponse, _read_word)


class Completer(AsyncCalls):
    """Ends tasks by their lease tokens, with asyncio.

    Every method is safe to repeat, and is repeated when the server is unavailable. They raise `LeaseLost`
    when the attempt has ended otherwise, `ValueError` for what breaks a rule, and else the errors of
    `meshq.contract.errors`.

    Args:
        target: As in `meshq.client.Client`.
        name: Who it is, for people; made up if None.
        timeout: Seconds that a call may take, its repetitions included.
        retry: How calls are repeated.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        name: str | None = None,
        timeout: float = 30.0,
        retry: CallRetries | None = None,
    ) -> None:
        self._reports = _Reports(name)
        super().__init__(target, timeout=timeout, retry=retry)

    async def succeed(self, lease_token: LeaseToken, result: Any = None) -> None:
        """The task has succeeded with a result, of which the same holds as of a handler's."""
        await self._perform(self._reports.success(lease_token, result))

    async def fail(self, lease_token: LeaseToken, error: TaskFailure) -> None:
        """The attempt has failed; `Retry` and `NoRetry` mean the same as in a handler."""
        await self._perform(self._reports.failure(lease_token, error))

    async def cancel(self, lease_token: LeaseToken, message: str = "") -> None:
        """The task has stopped as it was asked to."""
        await self._perform(self._reports.cancelled(lease_token, message))

    async def heartbeat(self, lease_token: LeaseToken) -> CancelRequest | None:
        """Begin the timeout anew; returns whether the task is to be cancelled."""
        return await self._perform(self._reports.heartbeat(lease_token))

    async def progress(
        self, lease_token: LeaseToken, fraction: float, message: str = "", detail: JsonValue = None
    ) -> CancelRequest | None:
        """As `TaskContext.progress`, and a heartbeat."""
        return await self._perform(self._reports.progress(lease_token, fraction, message, detail))

    async def checkpoint(self, lease_token: LeaseToken, value: JsonValue) -> CancelRequest | None:
        """As `TaskContext.checkpoint`, and a heartbeat."""
        return await self._perform(self._reports.checkpoint(lease_token, value))


class SyncCompleter(SyncCalls):
    """Ends tasks by their lease tokens, without asyncio.

    The methods and their errors are those of `Completer`. One may be shared by threads; it must not cross
    a fork.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        name: str | None = None,
        timeout: float = 30.0,
        retry: CallRetries | None = None,
    ) -> None:
        self._reports = _Reports(name)
        super().__init__(target, timeout=timeout, retry=retry)

    def succeed(self, lease_token: LeaseToken, result: Any = None) -> None:
        """As `Completer.succeed`."""
        self._perform(self._reports.success(lease_token, result))

    def fail(self, lease_token: LeaseToken, error: TaskFailure) -> None:
        """As `Completer.fail`."""
        self._perform(self._reports.failure(lease_token, error))

    def cancel(self, lease_token: LeaseToken, message: str = "") -> None:
        """As `Completer.cancel`."""
        self._perform(self._reports.cancelled(lease_token, message))

    def heartbeat(self, lease_token: LeaseToken) -> CancelRequest | None:
        """As `Completer.heartbeat`."""
        return self._perform(self._reports.heartbeat(lease_token))

    def progress(
        self, lease_token: LeaseToken, fraction: float, message: str = "", detail: JsonValue = None
    ) -> CancelRequest | None:
        """As `Completer.progress`."""
        return self._perform(self._reports.progress(lease_token, fraction, message, detail))

    def checkpoint(self, lease_token: LeaseToken, value: JsonValue) -> CancelRequest | None:
        """As `Completer.checkpoint`."""
        return self._perform(self._reports.checkpoint(lease_token, value))


def _read_word(response: pb.HeartbeatTasksResponse) -> CancelRequest | None:
    if response.lost_lease_tokens:
        raise LeaseLost("the attempt has ended")
    for wish in response.cancels:
        return CancelRequest(wish.reason, wish.grace.ToTimedelta())
    return None
