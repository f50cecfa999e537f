"""Become Envoy, and die with the gateway.

`python -I -S launcher.py <parent> <program> <argument>...` asks Linux to kill this process as soon as
the parent ends, however that ends, and then becomes the program under the same process id. It is a file
of its own that needs the standard library only: the request must be made in the child, and a process
with threads must not run Python code between fork and exec.
"""

from __future__ import annotations

import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Read the arguments, make the request, become the program."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - needed only there

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("The gateway ended before Envoy was started.")
    os.execv(command[0], command)  # noqa: S606 - becoming the program is the point


if __name__ == "__main__":
    main()
