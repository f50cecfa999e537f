"""A unary call as data."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from google.protobuf.message import Message

from meshq.client import models

LIST_PAGE_SIZE = 1_000

Result = TypeVar("Result")
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Operation(Generic[Result]):
    """One unary call.

    Attributes:
        method: The full name of the method.
        request: What is sent.
        answer: The class of the answer.
        convert: Makes the result from the answer. A `MeshqError` that it raises counts as if the server
            had answered so, and may be mended by repeating the call.
        safe: Whether repeating the call has no further effect.
        wait: Seconds that the server is asked to wait before it answers.
    """

    method: str
    request: Message
    answer: type[Message]
    convert: Callable[[Any], Result]
    safe: bool = True
    wait: float = 0.0


Steps: TypeAlias = Generator[Operation[Any], Any, Result]
"""Several calls that make up one: a generator yields them, takes their results, and returns its own."""


def new_request_id() -> str:
    """A request id of its own; the contract needs it unique per caller."""
    return uuid.uuid4().hex


def page_of(field: str, convert: Callable[..., Item]) -> Callable[[Any], models.Page[Item]]:
    """What reads a page whose items are in a field."""

    def read(message: Any) -> models.Page[Item]:
        return models.Page(tuple(convert(item) for item in getattr(message, field)), message.next_page_token)

    return read
