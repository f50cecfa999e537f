"""What is special about a task, as shards keep it: a short text that scripts take apart with one match.

`start_by rate_units fairness_weight start_to_close heartbeat announce limit_key`; the key is the last because
it may hold spaces. A task without traits has no text at all. But where its queue is configured a lease call
returns the text of no traits, so that whoever holds the lease keeps in mind where it counts. Most tasks of a
queue have the same texts, or one for each key.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from meshq.execution.model import Traits

_PLAIN: Final = Traits()
_PATTERN: Final = re.compile(
    rb"\d{1,15} \d{1,9} \d{1,9}(\.\d{1,9})?(e[+-]?\d{1,2})? \d{1,15} \d{1,15} [01] .{0,512}",
    re.DOTALL,
)


@lru_cache(maxsize=4_096)
def encode_extras(traits: Traits | None) -> bytes:
    """The text; empty where nothing is special."""
    if traits is None or traits == _PLAIN:
        return b""
    return (
        f"{traits.start_by_ms} {traits.rate_units} {traits.fairness_weight:g} {traits.start_to_close_ms} "
        f"{traits.heartbeat_ms} {int(traits.announce)} {traits.limit_key}"
    ).encode()


def are_extras(text: bytes) -> bool:
    """Whether a text can have been made by `encode_extras`."""
    try:
        return _PATTERN.fullmatch(text) is not None and bool(text.decode())
    except UnicodeDecodeError:
        return False


@lru_cache(maxsize=4_096)
def parse_extras(extras: bytes) -> Traits:
    """What a text says, which a shard has returned."""
    if not extras:
        return _PLAIN
    start_by, units, weight, start_to_close, heartbeat, announce, key = extras.split(b" ", 6)
    return Traits(
        key.decode(), int(units), float(weight), int(start_by), int(start_to_close), int(heartbeat),
        announce == b"1",
    )  # fmt: skip
