"""The keys of gRPC metadata that meshq reads or writes."""

from __future__ import annotations

from typing import Final

REQUEST_ID: Final = "x-request-id"
"""Names a call in all logs; made by the gateway or the first process that sees the call. Stands in
for a missing `request_id` of a write when the gateway set it."""

EDGE: Final = "x-meshq-edge"
"""Set by the gateway on every call that passed it, and removed from what comes in, so that a server
knows that `x-request-id` is stable over the gateway's retries."""
