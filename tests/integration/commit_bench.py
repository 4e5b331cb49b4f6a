"""A server on which commits are tried, beside the model that says what they must do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Any

import redis

from event_router.core.effects import UnitOfWork
from event_router.core.keys import checkpoint_key
from event_router.core.model import StateModel
from event_router.core.outcome import Answer, DeadLetter, Settlement, Verdict
from event_router.redis_client.address import parse_url
from event_router.redis_client.connections import Link
from event_router.redis_io.commits import Commits
from tests.environment.servers import Server

GROUP = "event-router-group"
CONSUMER = "consumer-a"
STREAM = "events:x"
HOUR_MS = 3_600_000
COMMITTED, SETTLED, CONFLICT = Answer(Verdict.COMMITTED), Answer(Verdict.SETTLED), Answer(Verdict.CONFLICT)
_DUMP = """
local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
    local kind, content = redis.call('TYPE', key).ok, false
    if kind == 'hash' then content = redis.call('HGETALL', key) end
    if kind == 'stream' then content = redis.call('XRANGE', key, '-', '+') end
    found[#found + 1] = { key, kind, redis.call('PTTL', key), content }
end
return found
"""


class CommitBench:
    """Commits over a link of its own, and a client that looks at the outcome. Use it in a `with`."""

    def __init__(self, server: Server, *, user: str = "") -> None:
        self.client: redis.Redis = server.client(decode_responses=False)
        self.text_client: redis.Redis = server.client()
        self._runner = asyncio.Runner()
        url = server.url.replace("://", f"://{user}@") if user else server.url
        self._link = Link(parse_url(url), timeout_s=10, name="commit")
        self.commits = Commits(self._link, GROUP)

    def __enter__(self) -> CommitBench:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.run(self._link.close())
        self._runner.close()
        self.client.close()
        self.text_client.close()

    def send(self, settlements: Iterable[Settlement]) -> list[Answer]:
        """Commit a batch."""
        return self._runner.run(self.commits.send(self.commits.pack(list(settlements))))

    def deliver(self, stream: str, *ids: str) -> None:
        """Add entries with these ids, and read them as the group."""
        for entry_id in ids:
            self.client.xadd(stream, {"type": "x"}, id=entry_id)
        self.client.xgroup_create(stream, GROUP, id="0", mkstream=True)
        if ids:
            self.client.xreadgroup(GROUP, CONSUMER, {stream: ">"})

    def pending(self, stream: str) -> set[str]:
        """Return the ids pending in the group."""
        found = self.client.xpending_range(stream, GROUP, min="-", max="+", count=10_000)
        return {entry["message_id"].decode() for entry in found}

    def checkpoint(self, stream: str) -> str | None:
        """Return what is kept as the stream's checkpoint."""
        found: bytes | None = self.client.hget(checkpoint_key(GROUP), stream)
        return None if found is None else found.decode()

    def load(self, initial: dict[str, tuple[str, Any]], ttl_ms: int | None) -> StateModel:
        """Create keys, each of its type, and return the model of them."""
        model = StateModel()
        for key, (kind, content) in initial.items():
            name = as_bytes(key)
            if kind == "hash":
                self.client.hset(name, mapping={as_bytes(f): as_bytes(v) for f, v in content.items()})
                model.hashes[key] = dict(content)
            elif kind == "stream":
                self.client.xadd(name, content)
                model.streams[key] = [tuple(part for pair in content.items() for part in pair)]
            else:
                self.client.set(name, content) if kind == "string" else self.client.rpush(name, content)
                model.others[key] = kind
            if ttl_ms is not None:
                self.client.pexpire(name, ttl_ms)
                model.ttl_ms[key] = ttl_ms
        return model

    def model(self, but: Iterable[str]) -> StateModel:
        """Return what the server holds, without the keys in `but`, as the model would hold it."""
        found = StateModel()
        dump: Any = self.client.eval(_DUMP, 0)
        for name, kind, ttl_ms, content in dump:
            key = as_text(name)
            if key in but or key == checkpoint_key(GROUP):
                continue
            if kind == b"hash":
                texts = [as_text(part) for part in content]
                found.hashes[key] = dict(zip(texts[::2], texts[1::2], strict=True))
            elif kind == b"stream":
                found.streams[key] = [tuple(as_text(part) for part in flat) for _, flat in content]
            else:
                found.others[key] = kind.decode()
            if ttl_ms != -1:
                found.ttl_ms[key] = ttl_ms
        return found

    def entries(self, stream: str | bytes) -> list[tuple[str, ...]]:
        """Return the names and values, in turn, of each entry (redis-py's dicts lose repetitions)."""
        found: Any = self.client.eval("return redis.call('XRANGE', KEYS[1], '-', '+')", 1, stream)
        return [tuple(as_text(part) for part in flat) for _, flat in found]


def as_bytes(text: str) -> bytes:
    """Return the bytes of a text of the model."""
    return text.encode("utf-8", "surrogateescape")


def as_text(raw: bytes) -> str:
    """Return bytes as the model holds them."""
    return raw.decode("utf-8", "surrogateescape")


def incrementing(amount: int = 1, key: str = "k", field: str = "n") -> UnitOfWork:
    """A unit with one increment."""
    unit = UnitOfWork()
    unit.hash(key).increment(field, amount)
    return unit


def setting(key: str = "k", **values: object) -> UnitOfWork:
    """A unit that sets fields."""
    unit = UnitOfWork()
    for field, value in values.items():
        unit.hash(key).set(field, value)
    return unit


def letter(fields: list[bytes], reason: str = "invalid") -> DeadLetter:
    """A dead letter with these names and values in turn."""
    return DeadLetter(reason, "why", 2, "consumer-a", "2026-01-01T00:00:00.000Z", fields)  # type: ignore[arg-type]


def of(*works: UnitOfWork | DeadLetter, stream: str = STREAM) -> list[Settlement]:
    """The works of entries 1-0, 2-0, …"""
    return [Settlement(stream, f"{number}-0", work) for number, work in enumerate(works, start=1)]
