"""Become another program that dies with its parent, if need be as another user.

`python -I -S launcher.py <parent> <signal> <user>:<group> <program> <argument>...` gives up its rights unless
the numbers are empty, asks Linux to send the signal when the parent ends, and then becomes the program, under
the same process id. It is a file of its own, with the standard library only, because all this must be done in
the child after the fork, where a process with threads must not run Python code.
"""

import os
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Read the arguments, do what they say, become the program."""
    parent, signal_number, account, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]
    request = _request()  # loaded while everything can still be read
    _become(account)
    request(signal_number)  # giving up rights would have cancelled it
    if os.getppid() != parent:
        sys.exit("The parent ended before the program was started.")
    try:
        os.execv(command[0], command)  # noqa: S606 - becoming the program is the point
    except OSError as error:
        sys.exit(f"{command[0]} cannot be started: {error.strerror}.")


def _request() -> Callable[[int], object]:
    if sys.platform != "linux":
        return lambda _: None
    import ctypes  # noqa: PLC0415 - needed only here

    prctl = ctypes.CDLL(None).prctl
    return lambda signal_number: prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)


def _become(account: str) -> None:
    user, _, group = account.partition(":")
    if user:
        os.setgroups([])
        os.setgid(int(group))
        os.setuid(int(user))


if __name__ == "__main__":
    main()
