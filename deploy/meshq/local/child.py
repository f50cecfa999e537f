"""Child processes as asyncio sees them: in sessions of their own, awaited, signalled, known to the guard.

`subprocess` starts them from the loop's own thread: Linux sends the signal of a parent's death when the
*thread* ends that started the child. asyncio's own subprocesses would do, but Python's and uvloop's differ.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol, Self

from meshq.local import guard

_GROUP_ENDS = 1.0
_LOOK_EVERY = 0.01


class Guard:
    """A small process that outlives this one for a moment and kills what this one has left behind."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @classmethod
    def start(cls) -> Self:
        """Start the process."""
        command = [sys.executable, "-I", "-S", guard.__file__]
        silent = subprocess.DEVNULL
        return cls(
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=silent,
                stderr=silent,
                bufsize=0,
                start_new_session=True,
            )
        )

    def began(self, group: int) -> None:
        """A process group exists."""
        self._tell(f"+{group}")

    def ended(self, group: int) -> None:
        """A process group is gone."""
        self._tell(f"-{group}")

    def owns(self, folder: Path) -> None:
        """The folder is to be removed at the end."""
        self._tell(f"remove {folder}")

    def close(self) -> None:
        """Let it clean up and end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # somebody killed the guard; the work goes on without one
            self._process.stdin.write(f"{line}\n".encode())


class Process(Protocol):
    """A process that leads a group: `subprocess.Popen`, or one that the fork server has started."""

    @property
    def pid(self) -> int:
        """Its process id, which is also its group's."""

    def wait(self) -> int:
        """Wait for its end and return the exit code, negative for a signal; called once."""

    def send_signal(self, number: int, /) -> None:
        """Send it a signal; nothing happens if it has ended."""


class Child:
    """One running process and everything it started."""

    def __init__(self, process: Process, guard: Guard) -> None:
        """The process has only just begun."""
        guard.began(process.pid)
        self._process = process
        self._guard = guard
        self._loop = asyncio.get_running_loop()
        self._exit: asyncio.Future[int] = self._loop.create_future()
        threading.Thread(target=self._await_exit, name=f"wait-{process.pid}", daemon=True).start()

    @classmethod
    def spawn(
        cls,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None,
        stdin: bytes | socket.socket,
        log: IO[bytes],
        guard: Guard,
    ) -> Self:
        """Start a process; there is no point at which it runs and the guard's next line is not about it."""
        with _readable(stdin) as given:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=given,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return cls(process, guard)

    @property
    def pid(self) -> int:
        """Its process id, which is also its group's."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether its end has not been seen yet."""
        return not self._exit.done()

    async def wait(self) -> int:
        """Wait for its end and return the exit code, negative for a signal."""
        return await asyncio.shield(self._exit)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens if it has ended."""
        self._process.send_signal(number)

    def kill_group(self) -> None:
        """Kill it and whatever it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def stop(self, number: signal.Signals, patience: float) -> None:
        """Ask it to end; kill it after so many seconds."""
        self.send(number)
        try:
            async with asyncio.timeout(patience):
                await self.wait()
        except TimeoutError:
            self.kill_group()
            await self.wait()

    def _await_exit(self) -> None:
        code = self._process.wait()
        self.kill_group()  # what it has started must not outlive it: a proxy would keep its port
        deadline = time.monotonic() + _GROUP_ENDS
        while self._group_exists() and time.monotonic() < deadline:
            time.sleep(_LOOK_EVERY)
        # The loop is closed if somebody gave up on it; then nobody waits either.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._set_exit, code)

    def _group_exists(self) -> bool:
        try:
            os.killpg(self._process.pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def _set_exit(self, code: int) -> None:
        self._guard.ended(self.pid)
        self._exit.set_result(code)


@contextlib.contextmanager
def _readable(content: bytes | socket.socket) -> Iterator[int]:
    """A file descriptor to read the content from; a pipe holds what we have to say at once."""
    if isinstance(content, socket.socket):
        yield content.fileno()
        return
    if not content:
        yield subprocess.DEVNULL
        return
    reading, writing = os.pipe()
    try:
        os.write(writing, content)
        os.close(writing)
        yield reading
    finally:
        os.close(reading)
