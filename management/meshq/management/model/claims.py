"""Claims: how a request that is made twice is answered twice and done once."""

from __future__ import annotations

import enum
import hashlib
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from meshq.contract.ids import ID_BYTES
from meshq.management.model.task import NewTask, TaskId


class ClaimKind(enum.StrEnum):
    """The calls that take request ids; each has its own room of names."""

    CREATE = "create"
    BATCH = "batch"
    INGEST = "ingest"
    RUN = "run"


class Claim(NamedTuple):
    """A request id with what it stands for.

    Attributes:
        name: Kind, tenant and request id; unique in the ledger.
        fingerprint: Tells whether a repeated request is the same request, 64 bits.
        answers: What was answered, as `encoded_answers` writes it.
        tasks: The number of tasks of the request; 0 where it was not read.
    """

    name: str
    fingerprint: int
    answers: bytes
    tasks: int = 0


class Verdict(enum.IntEnum):
    """What became of a task of a request."""

    NEW = 0
    """It was stored; with an id of zeros it was refused for what it is."""
    EXISTING = 1
    """Another task holds its unique key, and stands for it."""
    TAKEN = 2
    """Another task holds its unique key, and it was refused."""
    DRAINING = 3
    FULL = 4


class Answer(NamedTuple):
    """What a request was answered about one of its tasks.

    Attributes:
        task_id: The task, or the one that holds the unique key; zeros where there is none.
    """

    task_id: TaskId
    verdict: Verdict = Verdict.NEW


class Submission(NamedTuple):
    """The tasks of one request: either all of them are accepted under its claim or none is."""

    tasks: list[NewTask]
    claim: Claim | None
    size: int

    @property
    def ordered(self) -> bool:
        """Whether any of its tasks has a place in a chain."""
        return any(task.special is not None and task.special.ordering_key for task in self.tasks)

    @property
    def keyed(self) -> bool:
        """Whether what becomes of it depends on other tasks."""
        return any(
            task.special is not None and (task.special.unique or task.special.ordering_key)
            for task in self.tasks
        )


def encoded_answers(answers: Sequence[Answer]) -> bytes:
    """What a claim keeps: the ids, and behind them the verdicts unless all are NEW."""
    ids = b"".join(answer.task_id for answer in answers)
    verdicts = bytes(answer.verdict for answer in answers)
    return ids + verdicts if any(verdicts) else ids


def decoded_answers(kept: bytes, count: int) -> list[Answer]:
    """Read what a claim keeps.

    Args:
        kept: Ids, and perhaps verdicts.
        count: The number of tasks of the request.
    """
    verdicts = kept[ID_BYTES * count :] or bytes(count)
    return [
        Answer(kept[ID_BYTES * index : ID_BYTES * (index + 1)], Verdict(verdicts[index]))
        for index in range(count)
    ]


def corrected_answers(claim: Claim, others: Mapping[TaskId, Answer]) -> bytes:
    """What the claim keeps when some tasks are answered otherwise."""
    answers = decoded_answers(claim.answers, claim.tasks)
    return encoded_answers([others.get(answer.task_id, answer) for answer in answers])


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
