"""Become another program that dies with its parent.

`python -I -S launcher.py <parent> <signal> <program> <argument>...` asks Linux to send the signal when the
parent ends and then becomes the program, under the same process id. It is a file of its own, with the
standard library only, because the request must be made in the child after the fork, where a process with
threads must not run Python code.
"""

import os
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Read the arguments, make the request, become the program."""
    parent, signal_number, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - found on every Linux, and needed only there

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("The parent ended before the program was started.")
    os.execv(command[0], command)  # noqa: S606 - becoming the program is the point


if __name__ == "__main__":
    main()
