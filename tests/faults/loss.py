"""Packets that get lost: what arrives for a socket is thrown away by the kernel, before TCP sees it.

Nothing is acknowledged and nothing is reset, as when a cable is cut or a host has lost its power: a half-open
connection. A socket filter that accepts nothing does this on Linux, without any privilege.
"""

import ctypes
import socket
import sys
from typing import ClassVar, Final

_ATTACH: Final = 26
_DETACH: Final = 27
_RETURN: Final = 0x06


class _Instruction(ctypes.Structure):
    _fields_: ClassVar = [
        ("code", ctypes.c_uint16),
        ("jt", ctypes.c_uint8),
        ("jf", ctypes.c_uint8),
        ("k", ctypes.c_uint32),
    ]


class _Program(ctypes.Structure):
    _fields_: ClassVar = [("length", ctypes.c_uint16), ("instructions", ctypes.c_void_p)]


_NOTHING: Final = _Instruction(_RETURN, 0, 0, 0)
_ACCEPT_NOTHING: Final = bytes(_Program(1, ctypes.addressof(_NOTHING)))

AVAILABLE: Final = sys.platform == "linux"
"""Whether this system can do it."""


def begin(receiver: socket.socket) -> None:
    """Lose whatever arrives for a socket; of one that listens, also what would be new connections."""
    receiver.setsockopt(socket.SOL_SOCKET, _ATTACH, _ACCEPT_NOTHING)


def end(receiver: socket.socket) -> None:
    """Lose nothing more; the peers send again what was not acknowledged."""
    receiver.setsockopt(socket.SOL_SOCKET, _DETACH, 0)
