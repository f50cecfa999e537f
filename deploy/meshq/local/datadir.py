"""The data directory: usable, locked by one system at a time, with a folder of logs."""

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from meshq.local.errors import AlreadyRunning, DataUnusable

NEEDED = 200 << 20
_FULL = 8 << 20
_LOCK = "lock"
_OLD_LOGS = 3
_COMPLAINT = os.strerror(errno.ENOSPC)


def create(data: Path) -> Path:
    """Make the directory unless it exists; raise DataUnusable if that, or writing in it, is impossible."""
    with translated(data):
        data.mkdir(mode=0o711, parents=True, exist_ok=True)
        (data / "logs").mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=data) as trial:
            trial.write(b"\0" * 4096)
    free = shutil.disk_usage(data).free
    if free < NEEDED:
        raise DataUnusable(
            f"Only {free >> 20} MB are free where {data} is, and meshq needs {NEEDED >> 20} MB: "
            f"make room, or choose another place with --data."
        )
    return data


def create_ephemeral() -> Path:
    """Make a directory that is removed at the end."""
    with translated(Path(tempfile.gettempdir())):
        data = Path(tempfile.mkdtemp(prefix="meshq-"))
    data.chmod(0o711)
    return create(data)


@contextlib.contextmanager
def translated(data: Path) -> Iterator[None]:
    """Turn the operating system's errors about the directory into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(data) from error
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise DataUnusable(
            f"The data directory {data} cannot be used ({reason}): choose another with --data."
        ) from error


def was_full(data: Path) -> bool:
    """Whether a server may have ended because nothing was left, even if its end has made room again."""
    try:
        return shutil.disk_usage(data).free < _FULL or any(
            _COMPLAINT in log.read_text(errors="replace") for log in (data / "logs").glob("*.log")
        )
    except OSError:
        return False


def disk_full(data: Path) -> DataUnusable:
    """The sentence about a full disk."""
    return DataUnusable(f"The disk of {data} is full: make room, or choose another place with --data.")


class Lock:
    """One system a directory. It ends with the process that holds it, however that ends."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Take it, or raise AlreadyRunning."""
        with translated(self._data):
            file = (self._data / _LOCK).open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            holder = holder_of(self._data)
            process = f" (process {holder})" if holder else ""
            raise AlreadyRunning(
                f"meshq runs on {self._data} already{process}: stop it with `meshq down`, "
                f"or choose another place with --data."
            ) from None
        self._file = file
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()

    def release(self) -> None:
        """Give it back."""
        if self._file is not None:
            self._file.close()
            self._file = None


def holder_of(data: Path) -> int | None:
    """The process that holds the lock; None if nobody does."""
    try:
        file = (data / _LOCK).open("r+")
    except OSError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            text = file.read().strip()
            return int(text) if text.isdigit() else 0
    return None


def log_of(data: Path, name: str) -> Path:
    """Where a process's words go."""
    return data / "logs" / f"{name}.log"


def clear_temporary(data: Path) -> None:
    """Make the folder for temporary files empty; a process that was killed leaves some behind."""
    shutil.rmtree(temporary(data), ignore_errors=True)
    temporary(data).mkdir()


def temporary(data: Path) -> Path:
    """Where processes keep temporary files, so that they go with the data or at the next start."""
    return data / "tmp"


def rotate_logs(data: Path) -> None:
    """Put the logs of earlier runs aside, the oldest away."""
    for log in (data / "logs").glob("*.log"):
        for number in range(_OLD_LOGS, 0, -1):
            older, newer = Path(f"{log}.{number}"), Path(f"{log}.{number - 1}") if number > 1 else log
            if newer.exists():
                newer.replace(older)
