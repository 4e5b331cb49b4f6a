"""The HTTP port on a free port of the loopback: answers, deadlines and the cap on connections."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry, Gauge

from event_router.ops import http
from event_router.ops.http import HttpServer


class Port:
    """A served port, and what it serves."""

    def __init__(self) -> None:
        self.stuck: list[str] = []
        self.ready = True
        registry = CollectorRegistry()
        Gauge("answer", "The answer.", registry=registry).set(42)
        self.server = HttpServer(
            host="127.0.0.1",
            port=0,
            stuck=lambda: self.stuck,
            readiness=lambda: {"ready": self.ready, "redis": "up"},
            registry=registry,
        )

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.server.port)

    async def get(self, path: str, *headers: str, method: str = "GET") -> tuple[int, str, str]:
        """(status, head, body); returns only when the server has closed the connection."""
        reader, writer = await self.connect()
        lines = (f"{method} {path} HTTP/1.1", "Host: router", *headers, "", "")
        writer.write("\r\n".join(lines).encode())
        reply = (await asyncio.wait_for(reader.read(), 3)).decode()
        writer.close()
        head, _, body = reply.partition("\r\n\r\n")
        return int(head.split()[1]), head.lower(), body


@pytest.fixture
async def port() -> AsyncIterator[Port]:
    port = Port()
    await port.server.start()
    yield port
    await port.server.stop()


async def closed(reader: asyncio.StreamReader, within_s: float = 3) -> bool:
    """Whether the server closes the connection."""
    with contextlib.suppress(ConnectionError):
        while await asyncio.wait_for(reader.read(1_000), within_s):
            pass
    return True


class TestAnswers:
    async def test_alive_while_the_loops_make_progress(self, port: Port) -> None:
        status, _, body = await port.get("/livez")
        assert (status, json.loads(body)) == (200, {"alive": True, "stuck": []})
        port.stuck = ["commit"]
        status, _, body = await port.get("/livez")
        assert (status, json.loads(body)) == (503, {"alive": False, "stuck": ["commit"]})

    async def test_ready_or_why_not(self, port: Port) -> None:
        assert (await port.get("/readyz"))[0] == 200
        port.ready = False
        status, head, body = await port.get("/readyz")
        assert (status, json.loads(body)) == (503, {"ready": False, "redis": "up"})
        assert "content-type: application/json" in head

    async def test_metrics_in_both_forms(self, port: Port) -> None:
        _, head, body = await port.get("/metrics")
        assert "answer 42.0" in body
        assert "text/plain" in head
        _, head, body = await port.get("/metrics", "Accept: application/openmetrics-text; version=1.0.0")
        assert body.endswith("# EOF\n")
        assert "application/openmetrics-text" in head

    async def test_it_is_read_only(self, port: Port) -> None:
        reader, writer = await port.connect()
        writer.write(b"POST /livez HTTP/1.1\r\nHost: router\r\nContent-Length: 0\r\n\r\n")
        assert b" 405 " in await reader.readline()
        writer.close()

    async def test_it_ends_each_connection_after_its_answer(self, port: Port) -> None:
        assert "connection: close" in (await port.get("/livez"))[1]

    @pytest.mark.parametrize(("method", "path"), [("GET", "/nothing"), ("DELETE", "/livez")])
    async def test_also_after_a_refusal(self, port: Port, method: str, path: str) -> None:
        reader, writer = await port.connect()
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: router\r\n\r\n".encode())
        try:
            assert await closed(reader, 0.5)
        finally:
            writer.close()


class TestHostileClients:
    @pytest.mark.parametrize("sent", [b"", b"GET /livez HTTP/1.1\r\nHost: rou"])
    async def test_slow_loris_is_closed(
        self, monkeypatch: pytest.MonkeyPatch, port: Port, sent: bytes
    ) -> None:
        monkeypatch.setattr(http, "REQUEST_DEADLINE_S", 0.05)
        reader, writer = await port.connect()
        writer.write(sent)
        assert await closed(reader)
        writer.close()

    async def test_not_before_its_deadline(self, port: Port) -> None:
        reader, writer = await port.connect()
        writer.write(b"GET /livez HTTP/1.1\r\n")
        for _ in range(20):
            await asyncio.sleep(0)
        writer.write(b"Host: router\r\n\r\n")
        assert b" 200 " in await reader.readline()
        writer.close()

    async def test_lines_without_end_are_refused(self, port: Port) -> None:
        reader, writer = await port.connect()
        writer.write(b"GET /" + b"x" * 50_000 + b" HTTP/1.1\r\n\r\n")
        assert b" 400 " in await reader.readline()
        writer.close()

    async def test_connections_beyond_the_cap_are_refused_and_then_served_again(self, port: Port) -> None:
        held = [await port.connect() for _ in range(http.MOST_CONNECTIONS)]
        for _ in range(50):
            await asyncio.sleep(0)
        reader, writer = await port.connect()
        assert await closed(reader)
        writer.close()
        for _, one in held:
            one.close()
        for _ in range(200):
            with contextlib.suppress(ConnectionError, IndexError):
                if (await port.get("/livez"))[0] == 200:
                    return
        raise AssertionError("it serves nobody any more")

    async def test_nothing_is_kept_of_closed_connections(
        self, monkeypatch: pytest.MonkeyPatch, port: Port
    ) -> None:
        monkeypatch.setattr(http, "REQUEST_DEADLINE_S", 0.01)
        for _ in range(20):
            await port.get("/livez")
        later = asyncio.Event()
        asyncio.get_running_loop().call_later(0.02, later.set)
        await later.wait()
        assert not port.server._served


class TestLife:
    async def test_stop_before_the_start_and_twice(self) -> None:
        port = Port()
        await port.server.stop()
        await port.server.start()
        await port.server.stop()
        await port.server.stop()
        with pytest.raises(ConnectionError):
            await port.connect()

    async def test_it_stops_though_clients_stay(self) -> None:
        port = Port()
        await port.server.start()
        _, writer = await port.connect()
        await asyncio.wait_for(port.server.stop(), 3)
        writer.close()

    async def test_a_port_that_is_taken_is_an_error(self, port: Port) -> None:
        other = Port()
        other.server._port = port.server.port
        with pytest.raises(OSError, match="in use"):
            await other.server.start()
        await other.server.stop()
