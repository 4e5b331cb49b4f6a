"""A TCP proxy before Redis that loses replies, goes silent and cuts connections when a test says so."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tests.environment.resp import command_name, is_push, read_frame
from tests.environment.servers import free_port

T = TypeVar("T")

MOST_CONNECTIONS = 64
MOST_BYTES_A_LINE = 1 << 20
UNANSWERED = {"SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "MONITOR", "SYNC", "PSYNC"}


@dataclass
class ReplyToDrop:
    """Drops a reply: its request is forwarded, the reply swallowed, the connection cut.

    Only replies to ``command`` whose request and reply contain the given bytes, ``times`` of them.
    """

    command: str
    request: bytes
    reply: bytes
    times: int
    dropped: int = 0

    def matches(self, request: bytes, reply: bytes) -> bool:
        return (
            self.dropped < self.times
            and command_name(request) == self.command
            and self.request in request
            and self.reply in reply
        )


@dataclass(eq=False)
class _Link:
    """One client's connection and the one it was given to the server."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    asked: deque[bytes] = field(default_factory=deque)
    raw: bool = False

    def cut(self) -> None:
        for writer in (self.client, self.server):
            if writer.transport is not None:
                writer.transport.abort()


class Proxy:
    """Listens on a loopback port and passes every connection on to ``server_port``.

    ``accepted`` counts connections, ``requests`` the commands that came over them.
    It runs in a thread with a loop of its own, started by `with`; a test calls its methods directly.
    """

    def __init__(self, server_port: int) -> None:
        self.port = free_port()
        self.accepted = 0
        self.requests: Counter[str] = Counter()
        self._server_port = server_port
        self._drops: list[ReplyToDrop] = []
        self._replacements: dict[bytes, bytes] = {}
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._links)

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def drop_reply(
        self, command: str, *, request: bytes = b"", reply: bytes = b"", times: int = 1
    ) -> ReplyToDrop:
        """From now on drop the next ``times`` replies that match; the answer counts them."""
        drop = ReplyToDrop(command.upper(), request, reply, times)
        self._drops = [*self._drops, drop]
        return drop

    def replace_in_replies(self, old: bytes, new: bytes) -> None:
        """Change what the server says; both of one length, so that the protocol stays whole."""
        assert len(old) == len(new)
        self._replacements = self._replacements | {old: new}

    def freeze(self) -> None:
        """Half-open: connections stay and are accepted, nothing is forwarded in either direction."""
        self._do(self._flowing.clear)

    def thaw(self) -> None:
        """Forward again, also what was sent meanwhile."""
        self._do(self._flowing.set)

    def cut(self) -> None:
        """Close all connections; new ones are accepted."""
        self._do(self._cut)

    def _cut(self) -> None:
        for link in list(self._links):
            link.cut()

    def _do(self, action: Callable[[], object]) -> None:
        async def act() -> None:
            action()

        self._call(act())

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    async def _listen(self) -> None:
        self._flowing.set()
        self._listener = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, limit=MOST_BYTES_A_LINE
        )

    async def _close(self) -> None:
        self._listener.close()
        self._flowing.set()
        self._cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # one side went away, or the proxy ends
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._links) >= MOST_CONNECTIONS:
            return
        upstream, downstream = await asyncio.open_connection(
            "127.0.0.1", self._server_port, limit=MOST_BYTES_A_LINE
        )
        link = _Link(writer, downstream)
        self._links.add(link)
        pumps = [
            asyncio.create_task(self._forward(reader, link)),
            asyncio.create_task(self._answer(upstream, link)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._links.discard(link)
            link.cut()

    async def _forward(self, reader: asyncio.StreamReader, link: _Link) -> None:
        while True:
            request = await read_frame(reader)
            command = command_name(request)
            self.requests[command] += 1
            link.raw = link.raw or command in UNANSWERED
            await self._flowing.wait()
            link.asked.append(request)
            link.server.write(request)
            await link.server.drain()

    async def _answer(self, reader: asyncio.StreamReader, link: _Link) -> None:
        while True:
            reply = await read_frame(reader)
            await self._flowing.wait()
            if not link.raw and not is_push(reply) and self._is_dropped(link.asked.popleft(), reply):
                return
            for old, new in self._replacements.items():
                reply = reply.replace(old, new)
            link.client.write(reply)
            await link.client.drain()

    def _is_dropped(self, request: bytes, reply: bytes) -> bool:
        for drop in self._drops:
            if drop.matches(request, reply):
                drop.dropped += 1
                return True
        return False
