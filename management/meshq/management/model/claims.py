"""Claims: how a request that is made twice is answered twice and done once."""

from __future__ import annotations

import enum
import hashlib
import struct
from collections.abc import Sequence
from typing import NamedTuple

from meshq.management.model.task import NewTask


class ClaimKind(enum.StrEnum):
    """The calls that take request ids; each has its own room of names."""

    CREATE = "create"
    BATCH = "batch"
    INGEST = "ingest"


class Claim(NamedTuple):
    """A request id with what it stands for.

    Attributes:
        name: Kind, tenant and request id; unique in the ledger.
        fingerprint: Tells whether a repeated request is the same request, 64 bits.
        task_ids: 16 bytes for each task of the request, zeros where it was refused.
    """

    name: str
    fingerprint: int
    task_ids: bytes


class Submission(NamedTuple):
    """The tasks of one request: either all of them are accepted under its claim or none is."""

    tasks: list[NewTask]
    claim: Claim | None
    size: int


def claim_name(kind: ClaimKind, tenant: str, request_id: str) -> str:
    """The name under which a request id is claimed. A tenant's name has no slash."""
    return f"{kind}/{tenant}/{request_id}"


def fingerprint(contents: Sequence[bytes]) -> int:
    """A number that differs for requests that differ, as far as 64 bits can."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update(struct.pack(f">{len(contents)}I", *map(len, contents)))
    for content in contents:
        digest.update(content)
    return int.from_bytes(digest.digest(), "big", signed=True)
