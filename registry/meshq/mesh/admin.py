"""What an operator asks a process: `/metrics` and `/healthz` over HTTP, channelz over gRPC.

HTTP is answered by a thread of its own, so that metrics can be read while the loop is busy.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import grpc
from grpc_channelz.v1 import channelz
from prometheus_client import make_wsgi_app

from meshq.mesh.channels import SERVER_OPTIONS
from meshq.mesh.server import CannotListen, listen

# To be copied for each answer: the server adds to the list it is given.
_TEXT = (("Content-Type", "text/plain; charset=utf-8"),)
_StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class AdminServer:
    """Serves HTTP on the admin address and channelz on a free port of the same host.

    Args:
        address: `host:port` for HTTP.
        healthy: Whether the process serves.

    Attributes:
        address: Where HTTP was bound.
        channelz_address: Where channelz was bound.
    """

    def __init__(self, address: str, healthy: Callable[[], bool]) -> None:
        self.address = address
        self.channelz_address = ""
        self._healthy = healthy
        self._metrics = make_wsgi_app()
        self._http: WSGIServer | None = None
        self._grpc: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Bind both.

        Raises:
            CannotListen: The address is taken.
        """
        host, _, port = self.address.rpartition(":")
        try:
            self._http = make_server(host, int(port), self._answer, _Server, _QuietHandler)
        except OSError as error:
            raise CannotListen(f"cannot listen on {self.address}: {error.strerror or error}") from error
        self.address = f"{host}:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, name="admin", daemon=True).start()
        self._grpc = grpc.aio.server(options=SERVER_OPTIONS)
        channelz.add_channelz_servicer(self._grpc)
        self.channelz_address = f"{host}:{listen(self._grpc, f'{host}:0')}"
        await self._grpc.start()

    async def stop(self) -> None:
        """Close both."""
        http, self._http = self._http, None
        if http is not None:
            http.shutdown()
            http.server_close()
        server, self._grpc = self._grpc, None
        if server is not None:
            await server.stop(None)

    def _answer(self, environ: dict[str, Any], start_response: _StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            answer: Iterable[bytes] = self._metrics(environ, start_response)
            return answer
        if path == "/healthz":
            healthy = self._healthy()
            start_response("200 OK" if healthy else "503 Service Unavailable", list(_TEXT))
            return [b"serving\n" if healthy else b"not serving\n"]
        start_response("404 Not Found", list(_TEXT))
        return [b"there is /metrics and /healthz\n"]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing when a caller hangs up."""


class _QuietHandler(WSGIRequestHandler):
    timeout = 10

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log no requests."""
