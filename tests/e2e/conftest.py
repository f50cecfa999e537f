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
