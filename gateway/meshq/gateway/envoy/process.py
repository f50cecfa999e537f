"""One run of Envoy: a child process from its start to its end."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from envoy.config.bootstrap.v3 import bootstrap_pb2

from meshq.gateway.envoy import launcher
from meshq.mesh.telemetry import logger

_log = logger(__name__)
_envoy_log = logger("envoy")

_FORMAT: Final = "%l\t%n\t%v"
_LINE: Final = re.compile(r"(\w+)\t([\w.-]+)\t(.*)", re.DOTALL)
_LINE_BYTES: Final = 1 << 20
_TERM_SECONDS: Final = 5.0
_SERIOUS: Final = ("error", "critical")


class EnvoyProcess:
    """Envoy with one bootstrap. Its log becomes part of the gateway's.

    Args:
        program: The program.
        workers: How many worker threads it runs.
        drain_seconds: How long it goes on to listen after it was asked to drain.

    Attributes:
        complaints: What it last said was wrong.
    """

    def __init__(self, program: Path, workers: int, drain_seconds: float) -> None:
        self.complaints: deque[str] = deque(maxlen=3)
        self._program = program
        self._workers = workers
        self._drain_seconds = drain_seconds
        self._folder = tempfile.TemporaryDirectory(prefix="meshq-gateway-")
        self._stopping = False
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self, config: bootstrap_pb2.Bootstrap) -> None:
        """Start the child; it may end at once if the bootstrap is wrong or a port is taken."""
        bootstrap = Path(self._folder.name) / "bootstrap.pb"
        bootstrap.write_bytes(config.SerializeToString())
        self._process = await asyncio.create_subprocess_exec(
            *self._command(bootstrap),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            limit=_LINE_BYTES,
            start_new_session=True,
        )
        self._reading = asyncio.create_task(self._read_log(), name="log of envoy")

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def admin_address(self) -> str | None:
        """Where its admin interface listens, once it does."""
        with suppress(OSError):
            return self._admin_file.read_text().strip() or None
        return None

    async def wait(self) -> int:
        """Return the exit code when it has ended."""
        assert self._process is not None
        code = await self._process.wait()
        if self._reading is not None:
            await asyncio.wait({self._reading})
        return code

    async def stop(self) -> None:
        """Ask it to end, then make it; returns when it has."""
        self._stopping = True
        if self._process is not None:
            self._signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(_TERM_SECONDS):
                    await self.wait()
            except TimeoutError:
                self._signal(signal.SIGKILL)
                await self.wait()
        self._folder.cleanup()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    @property
    def _admin_file(self) -> Path:
        return Path(self._folder.name) / "admin"

    def _command(self, bootstrap: Path) -> Sequence[str]:
        return (
            *(sys.executable, "-I", "-S", str(launcher.__file__), str(os.getpid()), str(self._program)),
            *("--config-path", str(bootstrap)),
            *("--admin-address-path", str(self._admin_file)),
            *("--concurrency", str(self._workers)),
            *("--drain-time-s", str(round(self._drain_seconds)), "--drain-strategy", "immediate"),
            *("--file-flush-interval-msec", "1000"),
            *("--log-level", "warning", "--log-format", _FORMAT),
            # It is for handing over to a second Envoy, and its shared memory would tie gateways together.
            "--disable-hot-restart",
        )

    async def _read_log(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self._pass_on(line.decode(errors="replace").rstrip())

    def _pass_on(self, line: str) -> None:
        found = _LINE.fullmatch(line)
        level, part, text = found.groups() if found else ("error", "stderr", line)
        if level in _SERIOUS:
            self.complaints.append(text)
            _envoy_log.error(text, part=part)
        elif not self._stopping:
            _envoy_log.warning(text, part=part)
