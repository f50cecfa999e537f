"""The Lua scripts, one file per operation, each with the prelude and what else it needs before it."""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from typing import Final, NamedTuple

from meshq.execution.ring.keys import lua_names

_SHEBANG: Final = "#!lua"


class Script(NamedTuple):
    """A script as servers know it."""

    name: str
    text: bytes
    sha: bytes


_FIELDS: Final = (
    "ATTEMPT", "STATE", "LANE", "OWNER", "LEASE", "EXTRAS", "GRACE", "LEASED", "READY", "SCORE", "CANCEL",
    "HANDED",
)  # fmt: skip
"""What scripts read of a task, by position; they write `AT.<name>`."""


def _load(name: str, *parts: str) -> Script:
    """Put a script together: its first line, the prelude, other parts, the script."""
    folder = resources.files("meshq.execution.ring.lua")
    first, _, body = (folder / f"{name}.lua").read_text(encoding="utf-8").partition("\n")
    if not first.startswith(_SHEBANG):
        raise ValueError(f"{name}.lua must begin with {_SHEBANG}")
    before = [(folder / f"{part}.lua").read_text(encoding="utf-8") for part in ("prelude", *parts)]
    text = _CONSTANT.sub(_literal, "\n".join([first, *before, body])).encode()
    return Script(name, text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())


_CONSTANT: Final = re.compile(r"\b(KEY|AT)\.([A-Z_]+)")
"""Constants are put in as literals: a script begins anew with each call, and each name that its functions
share costs time every time."""


def _literal(found: re.Match[str]) -> str:
    kind, name = found.groups()
    return f"'{lua_names()[name]}'" if kind == "KEY" else str(_FIELDS.index(name) + 1)


_QUEUED: Final = ("limits", "lanes", "slots")
"""What scripts need that change lanes; the next ones also put tasks there, or end what they are in."""
_PLACE: Final = (*_QUEUED, "place")
_DETACH: Final = (*_QUEUED, "detach")
_MOVE: Final = (*_PLACE, "detach")

ENQUEUE: Final = _load("enqueue", *_MOVE)
LEASE: Final = _load("lease", *_PLACE, "promote", "gates", "turns")
RECEIVED: Final = _load("received")
RELEASE: Final = _load("release", *_MOVE)
DEFER: Final = _load("defer", *_DETACH)
BEAT: Final = _load("beat", "limits")
EXPIRE: Final = _load("expire", *_MOVE, "promote")
APPLY: Final = _load("apply", *_MOVE)
WITHDRAW: Final = _load("withdraw", *_DETACH)
COMPARE: Final = _load("compare")
EXPLAIN: Final = _load("explain", "limits")
ADOPT: Final = _load("adopt", *_DETACH)
GREET: Final = _load("greet")
RENEW: Final = _load("renew")
LEAVE: Final = _load("leave")
RENEW_POLLED: Final = _load("renew_polled", "limits")
RECALL: Final = _load("recall", "limits")
CONFIGURE: Final = _load("configure", *_QUEUED)
MOVE_AWAY: Final = _load("move_away", *_DETACH, "pack")
HAND_OVER: Final = _load("hand_over", *_DETACH, "pack")
CLOSE: Final = _load("close")
SHUT: Final = _load("shut")
OWN: Final = _load("own", *_QUEUED)
CONFIRM: Final = _load("confirm", *_QUEUED)
SETTLE: Final = _load("settle", "limits")
STRAY_LEASES: Final = _load("stray_leases", "limits")
PARKED_STRAYS: Final = _load("parked_strays", "limits")
DESCRIBE: Final = _load("describe", "limits")
RUNNING: Final = _load("running")
TOTALS: Final = _load("totals")
OUTCOMES: Final = _load("outcomes")
OPEN_EPOCH: Final = _load("open_epoch")
RECOVERED: Final = _load("recovered")

OF_ANY_RING: Final = frozenset({
    LEASE, RECEIVED, RELEASE, DEFER, BEAT, EXPIRE, APPLY, WITHDRAW, COMPARE, EXPLAIN, ADOPT, GREET, RENEW,
    LEAVE, RENEW_POLLED, RECALL, DESCRIBE, TOTALS, OUTCOMES, CLOSE,
})  # fmt: skip
"""Those that do the same whatever the ring is: where tasks belong makes no difference to them."""

AT_REST: Final = frozenset({LEASE, EXPIRE, RENEW, RECOVERED, OWN, DESCRIBE, RUNNING, TOTALS})
"""Those that are called whether there is anything to do or not."""

ALL: Final = (
    ENQUEUE, LEASE, RECEIVED, RELEASE, DEFER, BEAT, EXPIRE, APPLY, WITHDRAW, COMPARE, EXPLAIN, ADOPT, GREET,
    RENEW, LEAVE, RENEW_POLLED, RECALL, CONFIGURE, MOVE_AWAY, DESCRIBE, RUNNING, TOTALS, OUTCOMES, OPEN_EPOCH,
    RECOVERED, HAND_OVER, CLOSE, SHUT,
    OWN, CONFIRM, SETTLE, STRAY_LEASES, PARKED_STRAYS,
)  # fmt: skip
