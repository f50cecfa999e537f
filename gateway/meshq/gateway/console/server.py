"""The console over HTTP: `/`, `/healthz` and `/metrics`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict
from importlib.metadata import version
from typing import Final, Protocol

import aiohttp
from aiohttp import web
from prometheus_client import generate_latest

from meshq.gateway.console import metrics, page
from meshq.gateway.console.health import Health, assess
from meshq.gateway.console.view import GATEWAY, Overview
from meshq.gateway.envoy.supervisor import EnvoyState
from meshq.mesh.server import CannotListen

_ASSETS: Final = {"console.css": "text/css", "console.js": "text/javascript"}
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "Server": "meshq",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_STOP_SECONDS: Final = 2.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Mesh(Protocol):
    """What the console knows of the mesh."""

    async def overview(self) -> Overview:
        """What the components answer."""


class Edge(Protocol):
    """What the console knows of Envoy."""

    address: str

    async def state(self) -> EnvoyState:
        """How it is just now."""

    async def metrics(self) -> str:
        """Its statistics as Prometheus text."""


class Console:
    """Serves the console.

    Args:
        listen: Where, as `host:port`; port 0 takes a free one.
        instance_id: The gateway's own.
        mesh: The mesh.
        edge: Envoy.
        known: The component of each instance of the mesh that the directory knows.

    Attributes:
        address: Where it listens.
    """

    def __init__(
        self, listen: str, instance_id: str, mesh: Mesh, edge: Edge, known: Callable[[], Iterable[str]]
    ) -> None:
        self.address = listen
        self._instance_id = instance_id
        self._mesh = mesh
        self._edge = edge
        self._known = known
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            CannotListen: The address is taken.
        """
        if self._runner is not None:
            return
        self._session = aiohttp.ClientSession()
        self._runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=_STOP_SECONDS)
        await self._runner.setup()
        host, _, port = self.address.rpartition(":")
        try:
            await web.TCPSite(self._runner, host.strip("[]"), int(port)).start()
        except OSError as error:
            raise CannotListen(f"cannot listen on {self.address}: {error.strerror or error}") from error
        self.address = f"{host}:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Listen no longer."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[_in_form])
        app.router.add_get("/", self._show_page)
        app.router.add_get("/console/status", self._show_status)
        app.router.add_get("/console/{name}", _show_asset)
        app.router.add_get("/healthz", self._show_health)
        app.router.add_get("/metrics", self._show_metrics)
        app.router.add_get("/favicon.ico", _show_nothing)
        return app

    async def _show_page(self, _request: web.Request) -> web.Response:
        return web.Response(text=page.render(await self._page()), content_type="text/html")

    async def _show_status(self, _request: web.Request) -> web.Response:
        return web.Response(text=page.render_status(await self._page()), content_type="text/html")

    async def _show_health(self, _request: web.Request) -> web.Response:
        health = await self._health(await self._mesh.overview())
        return web.json_response(asdict(health), status=200 if health.serves else 503)

    async def _show_metrics(self, _request: web.Request) -> web.Response:
        own = generate_latest().decode() + await self._edge.metrics()
        parts = [metrics.Scraped(GATEWAY, self._instance_id, own), *await self._scrape_others()]
        return web.Response(text=metrics.merged(parts), headers={"Content-Type": metrics.CONTENT_TYPE})

    async def _scrape_others(self) -> Iterable[metrics.Scraped]:
        assert self._session is not None
        instances = (await self._mesh.overview()).instances.items
        others = [item for item in instances if item.instance_id != self._instance_id and item.admin_address]
        return await metrics.scrape(self._session, others)

    async def _page(self) -> page.Page:
        overview = await self._mesh.overview()
        return page.Page(
            overview=overview,
            health=await self._health(overview),
            edge=self._edge.address,
            instance_id=self._instance_id,
            version=version("meshq"),
        )

    async def _health(self, overview: Overview) -> Health:
        return assess(self._known(), overview, await self._edge.state())


@web.middleware
async def _in_form(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give every answer its headers, and refusals a form that programs read."""
    try:
        answer = await handler(request)
    except web.HTTPException as refusal:
        body = {"code": refusal.status, "message": refusal.reason}
        answer = web.json_response(body, status=refusal.status)
    answer.headers.update({key: value for key, value in _HEADERS.items() if key not in answer.headers})
    return answer


async def _show_asset(request: web.Request) -> web.Response:
    kind = _ASSETS.get(request.match_info["name"])
    if kind is None:
        raise web.HTTPNotFound
    return web.Response(text=page.asset(request.match_info["name"]), content_type=kind)


async def _show_nothing(_request: web.Request) -> web.Response:
    return web.Response(status=204, headers={"Cache-Control": "max-age=86400"})
