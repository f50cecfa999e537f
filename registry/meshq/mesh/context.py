"""The call that is being served: its request id, and whether it came through the gateway."""

from __future__ import annotations

import secrets
from contextvars import ContextVar
from typing import Any, Final

import grpc

from meshq.contract.limits import REQUEST_ID_PATTERN
from meshq.contract.metadata import EDGE, REQUEST_ID

_NONE: Final = ""


class ServedCall:
    """One call. The metadata is searched only when somebody asks."""

    __slots__ = ("_context", "_request_id", "method")

    def __init__(self, context: grpc.aio.ServicerContext[Any, Any], method: str) -> None:
        self._context = context
        self._request_id = _NONE
        self.method = method

    def request_id(self) -> str:
        """The id that came with the call, or one made for it now."""
        if not self._request_id:
            given = self._metadata(REQUEST_ID)
            self._request_id = given if REQUEST_ID_PATTERN.fullmatch(given) else secrets.token_hex(8)
        return self._request_id

    def edge(self) -> bool:
        """Whether the gateway passed the call on."""
        return bool(self._metadata(EDGE))

    def _metadata(self, wanted: str) -> str:
        for key, value in self._context.invocation_metadata() or ():
            if key == wanted:
                return value if isinstance(value, str) else value.decode("ascii", "replace")
        return _NONE


current_call: ContextVar[ServedCall | None] = ContextVar("meshq_served_call", default=None)


def request_id() -> str:
    """The request id of the call being served; empty outside of a call."""
    call = current_call.get()
    return call.request_id() if call is not None else _NONE


def edge() -> bool:
    """Whether the call being served came through the gateway, so that its request id is stable."""
    call = current_call.get()
    return call is not None and call.edge()
