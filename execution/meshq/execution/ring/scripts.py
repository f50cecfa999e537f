"""The Lua scripts, one file per operation, each with the prelude before it."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Final, NamedTuple

from meshq.execution.ring.keys import lua_table

_SHEBANG: Final = "#!lua"


class Script(NamedTuple):
    """A script as servers know it."""

    name: str
    text: bytes
    sha: bytes


def _load(name: str, *parts: str) -> Script:
    """Put a script together: its first line, the names of keys, the prelude, other parts, the script."""
    folder = resources.files("meshq.execution.ring.lua")
    first, _, body = (folder / f"{name}.lua").read_text(encoding="utf-8").partition("\n")
    if not first.startswith(_SHEBANG):
        raise ValueError(f"{name}.lua must begin with {_SHEBANG}")
    before = [(folder / f"{part}.lua").read_text(encoding="utf-8") for part in ("prelude", *parts)]
    text = "\n".join([first, lua_table(), *before, body]).encode()
    return Script(name, text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())


_TASKS: Final = ("limits", "tasks")
"""What scripts need that move tasks."""

ENQUEUE: Final = _load("enqueue", *_TASKS)
LEASE: Final = _load("lease", *_TASKS)
RECEIVED: Final = _load("received")
RELEASE: Final = _load("release", *_TASKS)
DEFER: Final = _load("defer", *_TASKS)
BEAT: Final = _load("beat", "limits")
EXPIRE: Final = _load("expire", *_TASKS)
APPLY: Final = _load("apply", *_TASKS)
WITHDRAW: Final = _load("withdraw", *_TASKS)
COMPARE: Final = _load("compare")
EXPLAIN: Final = _load("explain", "limits")
ADOPT: Final = _load("adopt", *_TASKS)
GREET: Final = _load("greet")
RENEW: Final = _load("renew")
LEAVE: Final = _load("leave")
RENEW_POLLED: Final = _load("renew_polled", "limits")
RECALL: Final = _load("recall")
CONFIGURE: Final = _load("configure", *_TASKS)
MOVE_AWAY: Final = _load("move_away", *_TASKS)
DESCRIBE: Final = _load("describe")
TOTALS: Final = _load("totals")
OUTCOMES: Final = _load("outcomes")
OPEN_EPOCH: Final = _load("open_epoch")
RECOVERED: Final = _load("recovered")

ALL: Final = (
    ENQUEUE, LEASE, RECEIVED, RELEASE, DEFER, BEAT, EXPIRE, APPLY, WITHDRAW, COMPARE, EXPLAIN, ADOPT, GREET,
    RENEW, LEAVE, RENEW_POLLED, RECALL, CONFIGURE, MOVE_AWAY, DESCRIBE, TOTALS, OUTCOMES, OPEN_EPOCH,
    RECOVERED,
)  # fmt: skip
