"""The last one out: kills what is left when the supervisor dies without a word.

`python -I -S guard.py` reads lines from its standard input. `+123` and `-123` say that process group 123
began and ended; `remove <folder>` that a folder lives as long as the supervisor. When the input ends, what is
left is killed and removed. It is a file of its own, with the standard library only, because it waits for
months and should be small.
"""

import contextlib
import os
import shutil
import signal
import sys
import time

_REMOVE = "remove "
_PATIENCE = 5.0


def main() -> None:
    """Follow the lines until they end, then clean up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    folders: list[str] = []
    for line in sys.stdin:
        text = line.rstrip("\n")
        if text.startswith(_REMOVE):
            folders.append(text.removeprefix(_REMOVE))
        elif text.startswith("+"):
            groups.add(int(text))
        else:
            groups.discard(-int(text))
    for group in groups:
        _kill(group)
    if groups and folders:
        _wait_until_gone(groups)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _wait_until_gone(groups: set[int]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while groups and time.monotonic() < deadline:
        groups = {group for group in groups if _exists(group)}
        time.sleep(0.02)


def _exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    main()
