"""`meshq up --detach`: the supervisor in a session of its own, and what its starter hears of it.

The supervisor writes one line of JSON to its standard output for each change until it is ready or has failed;
then its output goes to its log. The starter shows the lines and returns.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from meshq.local.board import Board, LineBoard
from meshq.local.datadir import log_of
from meshq.local.errors import LocalError, StartFailed
from meshq.local.foreground import INTERRUPTED, run
from meshq.local.plan import Size
from meshq.local.state import ProcessState
from meshq.local.system import System

_NAME = "supervisor"


@dataclass(frozen=True)
class Started:
    """What the starter needs to know of the system."""

    edge: str
    data: str


def start(data: Path | None, port: int, ephemeral: bool, shards: int, board: Board) -> Started:
    """Start a supervisor and return when its system is ready; raise its sentence if it is not."""
    folder = str(data.absolute()) if data else None
    words = json.dumps({"data": folder, "port": port, "ephemeral": ephemeral, "shards": shards})
    command = [sys.executable, "-m", "meshq.local.background", words]
    with (
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
        ) as process,
        _stopping_on_interrupt(process),
    ):
        for event in _events(process):
            if "error" in event:
                raise StartFailed(event["error"])
            if "ready" in event:
                # Leaving Popen's context would wait for the supervisor's end.
                assert process.stdout is not None
                process.stdout.close()
                process.returncode = 0
                return Started(**event["ready"])
            board.show(ProcessState(**event["process"]))
    raise StartFailed(f"The supervisor ended with code {process.returncode}.")


def main(words: str) -> int:
    """Be the supervisor."""
    options = json.loads(words)
    teller = _Teller()
    data = Path(options["data"]) if options["data"] else None
    system = System(
        data,
        port=options["port"],
        ephemeral=options["ephemeral"],
        size=Size(shards=options["shards"]),
        changed=teller.show,
    )
    try:
        return run(system, lambda: teller.ready(system))
    except LocalError as error:
        teller.tell({"error": str(error)})
        return 1


class _Teller:
    """Tells the starter, later the log."""

    def __init__(self) -> None:
        self._board: Board | None = None

    def show(self, process: ProcessState) -> None:
        if self._board is not None:
            self._board.show(process)
        else:
            self.tell({"process": asdict(process)})

    def ready(self, system: System) -> None:
        self.tell({"ready": asdict(Started(system.edge, str(system.data)))})
        log = os.open(log_of(system.data, _NAME), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log, stream.fileno())
        os.close(log)
        self._board = LineBoard(sys.stdout)

    def tell(self, event: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # nobody listens any more; the system runs all the same
            os.write(sys.stdout.fileno(), json.dumps(event).encode() + b"\n")


def _events(process: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    for line in process.stdout:
        yield json.loads(line)


@contextlib.contextmanager
def _stopping_on_interrupt(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Ctrl-C reaches the starter only: it hands it on and waits."""
    try:
        yield
    except KeyboardInterrupt:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(KeyboardInterrupt):
            process.wait()
        if process.poll() is None:  # a second Ctrl-C
            process.send_signal(signal.SIGTERM)
            process.wait()
        raise SystemExit(INTERRUPTED) from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
