"""Envoy's admin interface, as far as the gateway needs it."""

from __future__ import annotations

import re
from typing import Final

import aiohttp

from meshq.gateway.names import EDGE_LISTENER

_SECONDS: Final = aiohttp.ClientTimeout(total=3.0)
_ACTIVE_CALLS: Final = f"http.{EDGE_LISTENER}.downstream_rq_active"
_ROUTES: Final = f"http.{EDGE_LISTENER}.rds.edge.update_success"


class AdminUnreachable(Exception):
    """Envoy does not answer, or not with success."""


class EnvoyAdmin:
    """Asks one Envoy.

    Args:
        session: The HTTP client to use; the caller closes it.
        address: The admin interface, as `host:port`.
    """

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self._session = session
        self._address = address

    async def live(self) -> bool:
        """Whether Envoy has begun to serve."""
        try:
            return (await self._ask("GET", "/ready")).strip() == "LIVE"
        except AdminUnreachable:
            return False

    async def edge_port(self) -> int:
        """The port on which the edge listens."""
        for line in (await self._ask("GET", "/listeners")).splitlines():
            name, _, address = line.partition("::")
            if name == EDGE_LISTENER:
                return int(address.rpartition(":")[2])
        raise AdminUnreachable("Envoy has no listener of the edge")

    async def active_calls(self) -> int:
        """How many calls the edge has under way."""
        return await self._counter(_ACTIVE_CALLS)

    async def has_routes(self) -> bool:
        """Whether the registry has told the edge its routes."""
        return await self._counter(_ROUTES) > 0

    async def drain(self) -> None:
        """Fail health checks, ask callers to go elsewhere, and close the listeners after a while."""
        await self._ask("POST", "/healthcheck/fail")
        await self._ask("POST", "/drain_listeners?graceful&skip_exit")

    async def metrics(self) -> str:
        """The statistics that were ever used, as Prometheus text."""
        return await self._ask("GET", "/stats/prometheus?usedonly")

    async def _counter(self, name: str) -> int:
        answer = await self._ask("GET", f"/stats?filter=^{re.escape(name)}$")
        return int(answer.rpartition(":")[2] or 0)

    async def _ask(self, method: str, path: str) -> str:
        try:
            async with self._session.request(
                method, f"http://{self._address}{path}", timeout=_SECONDS
            ) as answer:
                text = await answer.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise AdminUnreachable(f"Envoy's admin interface does not answer: {error}") from error
        if not answer.ok:
            raise AdminUnreachable(f"Envoy answered {path} with {answer.status}")
        return text
