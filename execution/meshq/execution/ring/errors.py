"""What goes wrong between an instance and a shard.

```text
ShardError
├── ShardUnavailable   it does not answer, or is not ready for this instance
│   ├── EpochChanged   it began anew: what was known of it is void
│   └── ShardClosed    it was taken out of the ring for good
├── RingOutdated       it has seen a later version of the ring: load it and try again
└── ShardFull          it takes no more tasks for now
```
"""

from __future__ import annotations


class ShardError(Exception):
    """A shard did not do what it was asked for."""


class ShardUnavailable(ShardError):
    """The shard does not answer."""


class EpochChanged(ShardUnavailable):
    """The shard's epoch is not the one that this instance knows."""


class ShardClosed(ShardUnavailable):
    """The shard was taken out of the ring."""


class RingOutdated(ShardError):
    """The shard knows a later version of the ring."""


class ShardFull(ShardError):
    """The shard's memory is used up to the mark."""


def from_reply(text: str) -> ShardError:
    """The error that a shard's error reply stands for."""
    word = text.partition(" ")[0]
    if word == "EPOCH":
        return EpochChanged(text)
    if word == "RING":
        return RingOutdated(text)
    if word == "CLOSED":
        return ShardClosed(text)
    if word == "OOM":
        return ShardFull(text)
    if word in {"LOADING", "READONLY", "MASTERDOWN", "NOREPLICAS", "BUSY", "MISCONF", "NOAUTH", "WRONGPASS"}:
        return ShardUnavailable(text)
    return ShardError(text)
