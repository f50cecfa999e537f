"""What is special about a task, as shards keep it: a short text that scripts take apart with one match.

`start_by rate_units fairness_weight start_to_close heartbeat announce limit_key`; the key is the last because
it may hold spaces. A task without traits has no text at all.
"""

from __future__ import annotations

from typing import Final

from meshq.execution.model import Traits

_PLAIN: Final = Traits()


def encode_extras(traits: Traits | None) -> bytes:
    """The text; empty where nothing is special."""
    if traits is None or traits == _PLAIN:
        return b""
    return (
        f"{traits.start_by_ms} {traits.rate_units} {traits.fairness_weight:g} {traits.start_to_close_ms} "
        f"{traits.heartbeat_ms} {int(traits.announce)} {traits.limit_key}"
    ).encode()


def parse_extras(extras: bytes) -> Traits:
    """What a text says, which a shard has returned."""
    if not extras:
        return _PLAIN
    start_by, units, weight, start_to_close, heartbeat, announce, key = extras.split(b" ", 6)
    return Traits(
        key.decode(), int(units), float(weight), int(start_by), int(start_to_close), int(heartbeat),
        announce == b"1",
    )  # fmt: skip
