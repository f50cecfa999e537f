"""Completing tasks by their lease tokens against a scripted server, with and without asyncio."""

import asyncio
import base64
import datetime as dt
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fixtures.worker import Execution, execution

from meshq.client.retries import CallRetries
from meshq.client.values import from_value
from meshq.contract.errors import InvalidRequest, Unavailable
from meshq.v1 import worker_service_pb2 as pb
from meshq.worker import CancelRequest, Completer, Data, LeaseLost, NoRetry, Retry, SyncCompleter

__all__ = ["execution"]

TOKEN = b"\xff\xfelease"
TEXT = base64.urlsafe_b64encode(TOKEN).decode().rstrip("=")


class FromThreads:
    """A SyncCompleter with the methods of a Completer."""

    def __init__(self, completer: SyncCompleter) -> None:
        self._completer = completer

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **keywords: Any) -> Any:
            return await asyncio.to_thread(getattr(self._completer, name), *args, **keywords)

        return call


@pytest.fixture(params=["asyncio", "threads"])
async def completer(request: pytest.FixtureRequest, execution: Execution) -> AsyncIterator[Any]:
    if request.param == "asyncio":
        async with Completer(execution.target, name="c1") as found:
            yield found
    else:
        with SyncCompleter(execution.target, name="c1") as other:
            yield FromThreads(other)


async def test_a_task_is_ended(execution: Execution, completer: Any) -> None:
    await completer.succeed(TEXT, {"paid": True})
    await completer.succeed(base64.b64encode(TOKEN).decode(), Data(b"png", "image/png"))
    await completer.succeed(TOKEN)
    await completer.fail(TEXT, Retry(after=dt.timedelta(seconds=5), message="busy"))
    await completer.fail(TEXT, NoRetry("gone", type="GONE"))
    await completer.cancel(TEXT, "stopped")
    assert {request.worker_id for request in execution.completions} == {"c1"}
    results = [request.results[0] for request in execution.completions]
    assert {result.lease_token for result in results} == {TOKEN}
    json, data, nothing, retry, last, cancelled = results
    assert from_value(json.success.result) == {"paid": True}
    assert (data.success.data, data.success.content_type) == (b"png", "image/png")
    assert nothing.HasField("success")
    assert retry.failure.retry_delay.ToSeconds() == 5
    assert (last.failure.error.type, last.failure.non_retryable) == ("GONE", True)
    assert cancelled.cancelled.message == "stopped"


async def test_it_is_kept_alive(execution: Execution, completer: Any) -> None:
    assert await completer.heartbeat(TEXT) is None
    assert await completer.progress(TEXT, 0.5, "half", {"n": 1}) is None
    assert await completer.checkpoint(TEXT, "here") is None
    beat, progress, checkpoint = execution.words
    assert list(beat.lease_tokens) == [TOKEN]
    assert (progress.progress[0].lease_token, progress.progress[0].fraction) == (TOKEN, 0.5)
    assert from_value(checkpoint.progress[0].checkpoint) == "here"


async def test_it_hears_of_a_cancellation(execution: Execution, completer: Any) -> None:
    wish = execution.heard.cancels.add(lease_token=TOKEN, reason="enough")
    wish.grace.FromSeconds(5)
    assert await completer.heartbeat(TEXT) == CancelRequest("enough", dt.timedelta(seconds=5))


async def test_an_attempt_that_has_ended_is_lost(execution: Execution, completer: Any) -> None:
    execution.answer = lambda _token: pb.RESULT_STATUS_LEASE_LOST
    with pytest.raises(LeaseLost, match="ended otherwise"):
        await completer.succeed(TEXT)
    execution.heard.lost_lease_tokens.append(TOKEN)
    with pytest.raises(LeaseLost):
        await completer.heartbeat(TEXT)


async def test_what_cannot_be_stored_is_reported_again(execution: Execution, completer: Any) -> None:
    statuses = [pb.RESULT_STATUS_TRY_LATER, pb.RESULT_STATUS_TRY_LATER]
    execution.answer = lambda _token: statuses.pop() if statuses else pb.RESULT_STATUS_ACCEPTED
    await completer.succeed(TEXT, 1)
    assert len(execution.completions) == 3


async def test_patience_ends(execution: Execution) -> None:
    execution.answer = lambda _token: pb.RESULT_STATUS_TRY_LATER
    async with Completer(execution.target, retry=CallRetries(maximum_attempts=2)) as completer:
        with pytest.raises(Unavailable, match="could not be stored"):
            await completer.succeed(TEXT)
    assert len(execution.completions) == 2


async def test_bad_input_is_named(execution: Execution, completer: Any) -> None:
    with pytest.raises(InvalidRequest, match="lease_token: must be base64, not 'a b'"):
        await completer.succeed("a b")
    with pytest.raises(ValueError, match="result: must be at most 1,048,576 bytes"):
        await completer.succeed(TEXT, "x" * (1 << 20))
    with pytest.raises(ValueError, match="result: must be a JSON value"):
        await completer.succeed(TEXT, object())
    with pytest.raises(ValueError, match="fraction must be 0 to 1, not 2"):
        await completer.progress(TEXT, 2)
    with pytest.raises(ValueError, match="'-' must be"):
        Completer(name="-")
    assert execution.completions == []
