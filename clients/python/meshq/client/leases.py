"""Ends tasks by their lease tokens, for whoever has no worker's packages; `meshq.worker.Completer` can more.

```python
with SyncLeases("localhost:8080") as leases:
    leases.succeed(lease_token, {"paid": True})
```
"""

from __future__ import annotations

import base64
import binascii
import secrets
from typing import Final, TypeAlias

from meshq.client.models import UNSET, Unset
from meshq.client.operations import Operation
from meshq.client.sync_calls import SyncCalls
from meshq.client.values import JsonValue, NotJson, fill_value
from meshq.contract.errors import InvalidRequest, Unavailable, shown
from meshq.contract.limits import NAME_PATTERN, NAME_RULE
from meshq.v1 import worker_service_pb2 as pb
from meshq.v1.task_pb2 import TaskError

COMPLETE: Final = "/meshq.v1.WorkerService/CompleteTasks"

LeaseToken: TypeAlias = "str | bytes"
"""`TaskContext.lease_token`, or the bytes that it stands for."""


class LeaseLost(Exception):
    """The attempt has ended already, or is no longer whose token this is; nothing was recorded."""


class SyncLeases(SyncCalls):
    """Ends tasks by their lease tokens, without asyncio.

    Both methods are safe to repeat; the first end counts. They raise `LeaseLost` when the attempt has ended
    otherwise, and else the errors of `meshq.contract.errors`.
    """

    def succeed(
        self,
        lease_token: LeaseToken,
        payload: JsonValue | Unset = UNSET,
        *,
        data: bytes | None = None,
        content_type: str = "",
    ) -> None:
        """The task has succeeded; its result is a JSON value, or bytes, or nothing."""
        result = pb.TaskResult(lease_token=token_bytes(lease_token))
        result.success.SetInParent()
        if data is not None:
            result.success.data = data
            result.success.content_type = content_type
        elif payload is not UNSET:
            try:
                fill_value(result.success.result, payload)
            except NotJson as error:
                raise InvalidRequest.field(f"result{error.path}", error.rule) from None
        self._perform(completion(checked_name(None), result))

    def fail(self, lease_token: LeaseToken, message: str, *, kind: str, non_retryable: bool = False) -> None:
        """The attempt has failed with an error of this kind; without more ado it may be made again."""
        failure = pb.Failure(error=TaskError(type=kind, message=message), non_retryable=non_retryable)
        result = pb.TaskResult(lease_token=token_bytes(lease_token), failure=failure)
        self._perform(completion(checked_name(None), result))


def checked_name(name: str | None) -> str:
    """The name that was given, or one that is made up.

    Raises:
        ValueError: It is no name.
    """
    name = name or f"completer-{secrets.token_hex(4)}"
    if not NAME_PATTERN.fullmatch(name):
        raise ValueError(f"{name!r} {NAME_RULE}")
    return name


def token_bytes(token: LeaseToken) -> bytes:
    """The bytes that a token stands for.

    Raises:
        InvalidRequest: It is no base64.
    """
    if isinstance(token, bytes):
        return token
    # REST shows tokens in the other alphabet of base64, and padded.
    text = token.replace("+", "-").replace("/", "_").rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest.field("lease_token", f"must be base64, not {shown(token)}") from None


def completion(name: str, result: pb.TaskResult) -> Operation[None]:
    """Report how a task ended."""
    request = pb.CompleteTasksRequest(worker_id=name, results=[result])
    return Operation(COMPLETE, request, pb.CompleteTasksResponse, _read_end)


def _read_end(response: pb.CompleteTasksResponse) -> None:
    status = response.acks[0].status
    if status == pb.RESULT_STATUS_LEASE_LOST:
        raise LeaseLost("the attempt has ended otherwise; the result is dropped")
    if status != pb.RESULT_STATUS_ACCEPTED:
        raise Unavailable("the result could not be stored just now")
