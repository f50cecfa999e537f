"""The whole system, started once for all end-to-end tests, and ways to talk to it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import sysconfig
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import pytest

from meshq.client import SyncClient
from meshq.local.system import System

START_SECONDS = 100.0
DEADLINE = 30.0

Found = TypeVar("Found")


@pytest.fixture(scope="session")
def system() -> Iterator[System]:
    """The system, in a loop on a thread of its own, so that it is looked after while tests run."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="system", daemon=True)
    thread.start()
    system = System(port=0, ephemeral=True)
    try:
        asyncio.run_coroutine_threadsafe(system.__aenter__(), loop).result(START_SECONDS)
        yield system
    finally:
        asyncio.run_coroutine_threadsafe(system.stop(), loop).result(START_SECONDS)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(DEADLINE)
        loop.close()


@pytest.fixture(scope="session")
def channel(system: System) -> Iterator[grpc.Channel]:
    """A bare channel to the edge."""
    options = [("grpc.max_send_message_length", -1), ("grpc.enable_retries", 0)]
    with grpc.insecure_channel(system.edge, options=options) as channel:
        yield channel


@pytest.fixture(scope="session")
def client(system: System) -> Iterator[SyncClient]:
    """The SDK at the edge."""
    with SyncClient(system.edge) as client:
        yield client


@dataclass(frozen=True)
class Answer:
    """What came back over HTTP."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def reason(self) -> str:
        """The reason of an error."""
        (info,) = (item for item in self.json["details"] if item["@type"].endswith("google.rpc.ErrorInfo"))
        reason: str = info["reason"]
        return reason

    @property
    def violations(self) -> dict[str, str]:
        """The rules by field that an error says were broken."""
        return {
            item["field"]: item["description"]
            for detail in self.json["details"]
            if detail["@type"].endswith("google.rpc.BadRequest")
            for item in detail["field_violations"]
        }


class Rest:
    """What curl does."""

    def __init__(self, edge: str) -> None:
        self._edge = edge

    def __call__(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """One request; a body that is no text is sent as JSON."""
        with self.open(method, path, body, headers) as response:
            return Answer(response.status, dict(response.getheaders()), response.read().decode())

    @contextlib.contextmanager
    def open(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """The response to a request, its body unread."""
        connection = http.client.HTTPConnection(self._edge, timeout=DEADLINE)
        try:
            text = body if body is None or isinstance(body, (str, bytes)) else json.dumps(body)
            connection.request(method, path, text, headers or {})
            yield connection.getresponse()
        finally:
            connection.close()


@pytest.fixture(scope="session")
def rest(system: System) -> Rest:
    """REST at the edge."""
    return Rest(system.edge)


class Hand:
    """A worker of one queue that does nothing by itself: it polls and completes as a test says.

    Args:
        rest: The edge.
        queue: The only queue that it serves.
        task_type: The only type that it handles.
    """

    def __init__(self, rest: Rest, queue: str, task_type: str = "by_hand") -> None:
        self._rest = rest
        self.queue = queue
        self.task_type = task_type
        self.worker_id = f"hand-{queue}"

    def create(self, **task: Any) -> Any:
        """A new task of its queue and type."""
        answer = self.try_to_create(**task)
        assert answer.status == 200, answer.text
        return answer.json

    def try_to_create(self, **task: Any) -> Answer:
        """What creating a task is answered with."""
        return self._rest("POST", "/v1/tasks", {"type": self.task_type, "queue": self.queue} | task)

    def read(self, task: Any) -> Any:
        """How a task stands."""
        return self._rest("GET", f"/v1/tasks/{task['task_id']}").json

    def poll(self, most: int = 1, wait: float = 10.0, **more: Any) -> list[Any]:
        """Lease what there is; wait for the first one."""
        request = {
            "worker_id": self.worker_id,
            "task_types": [self.task_type],
            "queues": [self.queue],
            "max_tasks": most,
            "wait_timeout": f"{wait}s",
        }
        answer = self._rest("POST", "/v1/leases:poll", request | more)
        assert answer.status == 200, answer.text
        found: list[Any] = answer.json["assignments"]
        return found

    def take(self, **more: Any) -> Any:
        """Lease the next task."""
        (assignment,) = self.poll(**more)
        return assignment

    def beat(self, lease: Any, **progress: Any) -> Any:
        """Renew a lease, with news."""
        token = lease["lease_token"]
        request: dict[str, Any] = {"worker_id": self.worker_id, "lease_tokens": [token]}
        if progress:
            request["progress"] = [{"lease_token": token} | progress]
        answer = self._rest("POST", "/v1/leases:heartbeat", request)
        assert answer.status == 200, answer.text
        return answer.json

    def end(self, lease: Any, **outcome: Any) -> str:
        """Report how a task ended; the status of the report."""
        result = {"lease_token": lease["lease_token"]} | outcome
        request = {"worker_id": self.worker_id, "results": [result]}
        answer = self._rest("POST", "/v1/leases:complete", request)
        assert answer.status == 200, answer.text
        status: str = answer.json["acks"][0]["status"]
        return status.removeprefix("RESULT_STATUS_")

    def succeed(self, lease: Any, result: Any = None) -> str:
        """Report success."""
        return self.end(lease, success={"result": result})

    def fail(self, lease: Any, kind: str = "Broken", **more: Any) -> str:
        """Report failure."""
        return self.end(lease, failure={"error": {"type": kind, "message": f"it is {kind}"}} | more)


@pytest.fixture
def hand(rest: Rest) -> Hand:
    """A worker by hand with a queue of its own."""
    return Hand(rest, f"q-{uuid.uuid4().hex[:10]}")


@pytest.fixture(scope="session")
def eventually() -> Callable[[Callable[[], Found], Callable[[Found], bool]], Found]:
    """Ask until the answer is as wanted, and return it."""

    def ask(question: Callable[[], Found], wanted: Callable[[Found], bool]) -> Found:
        end = time.monotonic() + DEADLINE
        while not wanted(found := question()):
            assert time.monotonic() < end, found
            time.sleep(0.05)
        return found

    return ask


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """Finds a program. Where there is none the test is skipped, but not in continuous integration."""

    def find(name: str) -> str:
        folders = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
        found = shutil.which(name, path=folders)
        return found or missing(f"{name} is not installed; .ci/run installs it")

    return find


def missing(what: str) -> Any:
    """End a test that needs something which is not there."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)
