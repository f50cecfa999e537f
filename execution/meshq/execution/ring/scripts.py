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


def _load(name: str) -> Script:
    folder = resources.files("meshq.execution.ring.lua")
    first, _, body = (folder / f"{name}.lua").read_text(encoding="utf-8").partition("\n")
    if not first.startswith(_SHEBANG):
        raise ValueError(f"{name}.lua must begin with {_SHEBANG}")
    prelude = (folder / "prelude.lua").read_text(encoding="utf-8")
    text = f"{first}\n{lua_table()}\n{prelude}\n{body}".encode()
    return Script(name, text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())


ENQUEUE: Final = _load("enqueue")
LEASE: Final = _load("lease")
RECEIVED: Final = _load("received")
RELEASE: Final = _load("release")
EXPIRE: Final = _load("expire")
APPLY: Final = _load("apply")
WITHDRAW: Final = _load("withdraw")
COMPARE: Final = _load("compare")
ADOPT: Final = _load("adopt")
GREET: Final = _load("greet")
RENEW: Final = _load("renew")
LEAVE: Final = _load("leave")
RENEW_POLLED: Final = _load("renew_polled")
RECALL: Final = _load("recall")
DESCRIBE: Final = _load("describe")
TOTALS: Final = _load("totals")
OUTCOMES: Final = _load("outcomes")
OPEN_EPOCH: Final = _load("open_epoch")
RECOVERED: Final = _load("recovered")

ALL: Final = (
    ENQUEUE, LEASE, RECEIVED, RELEASE, EXPIRE, APPLY, WITHDRAW, COMPARE, ADOPT, GREET, RENEW, LEAVE,
    RENEW_POLLED, RECALL, DESCRIBE, TOTALS, OUTCOMES, OPEN_EPOCH, RECOVERED,
)  # fmt: skip
