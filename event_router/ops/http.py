"""The HTTP port: liveness, readiness and metrics; read-only, with deadlines and a cap on connections."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

MOST_CONNECTIONS = 256
REQUEST_DEADLINE_S = 5.0
"""A connection that has sent no whole request by then is closed."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Refused(asyncio.Protocol):
    """Closes a connection at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class HttpServer:
    """Serves `/livez`, `/readyz` and `/metrics`.

    Args:
        stuck: names of loops that make no progress; empty means alive. Never asks Redis: an outage
            must not kill pods.
        readiness: what `/readyz` shows; its `ready` decides between 200 and 503.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        stuck: Callable[[], list[str]],
        readiness: Callable[[], Mapping[str, object]],
        registry: CollectorRegistry,
    ) -> None:
        self._host = host
        self._port = port
        self._stuck = stuck
        self._readiness = readiness
        self._registry = registry
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self._served: set[object] = set()

    @property
    def port(self) -> int:
        """The port it listens on."""
        if self._server is None or not self._server.sockets:
            return self._port
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(self) -> None:
        """Listen. Raises OSError if the address cannot be bound."""
        app = web.Application(middlewares=[self._once_a_connection], client_max_size=1024)
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, max_line_size=4096, max_field_size=4096
        )
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, self._host, self._port)

    async def stop(self) -> None:
        """Close the port. May be called twice, or before the start."""
        if self._server is not None:
            self._server.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def _accept(self) -> asyncio.BaseProtocol:
        server = self._runner.server if self._runner is not None else None
        if server is None or len(server.connections) >= MOST_CONNECTIONS:
            return _Refused()
        connection = server()
        asyncio.get_running_loop().call_later(REQUEST_DEADLINE_S, self._close_unless_served, connection)
        return connection

    def _close_unless_served(self, connection: web.RequestHandler) -> None:
        if connection in self._served:
            self._served.remove(connection)
        elif connection.transport is not None:
            connection.transport.close()

    @web.middleware
    async def _once_a_connection(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._served.add(request.protocol)
        try:
            response = await handler(request)
        except web.HTTPException as refusal:
            response = web.Response(text=f"{refusal.status}: {refusal.reason}", status=refusal.status)
        response.force_close()
        return response

    async def _livez(self, _: web.Request) -> web.Response:
        stuck = self._stuck()
        return _json({"alive": not stuck, "stuck": stuck}, 503 if stuck else 200)

    async def _readyz(self, _: web.Request) -> web.Response:
        state = self._readiness()
        return _json(state, 200 if state["ready"] else 503)

    async def _metrics(self, request: web.Request) -> web.Response:
        encoder, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encoder(self._registry), headers={"Content-Type": content_type})


def _json(value: object, status: int) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")
