"""Tokens: where a list goes on, tied to the filters that it began with, and where a watch does."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

from meshq.contract.errors import InvalidRequest, shown
from meshq.management.model.task import TaskFilter, TaskId
from meshq.management.model.validation import is_name

_DIGEST_BYTES: Final = 8
_ID_BYTES: Final = 16
_TIME_BYTES: Final = 8
_CHECK_BYTES: Final = 4
_RULE: Final = "must be the next_page_token of an earlier call with the same filters"


def filter_digest(wanted: TaskFilter) -> bytes:
    """What tells filters apart."""
    return hashlib.blake2b(repr(tuple(wanted)).encode(), digest_size=_DIGEST_BYTES).digest()


def page_token(last: TaskId, digest: bytes) -> str:
    """The token of the page behind a task."""
    return _encoded(digest + last)


def read_page_token(token: str, digest: bytes) -> TaskId:
    """The task behind which the page begins.

    Raises:
        InvalidRequest: The token was not made for these filters, or not by us.
    """
    content = _decoded(token)
    if len(content) != _DIGEST_BYTES + _ID_BYTES or content[:_DIGEST_BYTES] != digest:
        raise _foreign(token)
    return content[_DIGEST_BYTES:]


def name_token(last: str) -> str:
    """The token of the page behind a name."""
    return _encoded(last.encode())


def read_name_token(token: str) -> str:
    """The name behind which the page begins.

    Raises:
        InvalidRequest: The token was not made by us.
    """
    try:
        name = _decoded(token).decode()
    except UnicodeDecodeError as error:
        raise _foreign(token) from error
    if not is_name(name):
        raise _foreign(token)
    return name


def resume_token(time_ms: int) -> bytes:
    """The token of a watch that has shown everything that was committed before a time."""
    content = time_ms.to_bytes(_TIME_BYTES, "big")
    return content + hashlib.blake2b(content, digest_size=_CHECK_BYTES).digest()


def read_resume_token(token: bytes) -> int:
    """The time of a token.

    Raises:
        InvalidRequest: The token was not made by us.
    """
    content = token[:_TIME_BYTES]
    if token != resume_token(int.from_bytes(content, "big")):
        rule = f"must be the resume_token of an event of an earlier watch, not {shown(_encoded(token))}"
        raise InvalidRequest.field("resume_token", rule)
    return int.from_bytes(content, "big")


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _decoded(token: str) -> bytes:
    try:
        padded = token.encode("ascii") + b"=" * (-len(token) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise _foreign(token) from error


def _foreign(token: str) -> InvalidRequest:
    return InvalidRequest.field("page_token", f"{_RULE}, not {shown(token)}")
