"""Handlers without a server: the state that events leave, worked out in memory.

    state = apply(AuthEventHandler(), [event("auth", "login", user_id="1")])
    assert state["state:user:1"]["login_count"] == "1"

Events are applied one after the other, each decoded, handled and committed as the router does it. What a
handler raises comes out of `apply`, except for what the router dead-letters at once; nothing is retried.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import msgspec

from event_router.core.decoding import Decoder
from event_router.core.effects import UnitOfWork
from event_router.core.encoding import wire_value
from event_router.core.entry_id import parse_id
from event_router.core.errors import ConfigurationError, InvalidEvent, InvalidState, Reject, StateError
from event_router.core.event import Entry
from event_router.core.handler import EventHandler
from event_router.core.keys import KeyNames
from event_router.core.model import StateModel
from event_router.core.outcome import Settlement, Verdict
from event_router.core.registry import HandlerRegistry
from event_router.core.state import StateReader, StateTransaction
from event_router.core.timestamps import parse_time
from event_router.core.values import encode_value

FIRST_ENTRY_MS = 1_767_225_600_000
"""2026-01-01: the id's milliseconds, and so the time, of events that are given neither."""


@dataclass(frozen=True, slots=True)
class Published:
    """An entry as a producer adds it, made by `event`."""

    domain: str
    fields: Mapping[str, bytes]
    entry_id: str | None = None


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """An event that became a dead letter instead of changing the state."""

    event: Published
    reason: str
    error: str


def event(domain: str, type: str, /, *, entry_id: str | None = None, **fields: object) -> Published:
    """Return an event for `apply`.

    Args:
        entry_id: the id it has in its stream; by default one behind all earlier ones, at its `timestamp`.
        fields: what the producer sends. Times and dates become ISO 8601, objects and lists JSON; a field
            that is None is left out.
    """
    sent: dict[str, bytes] = {"type": type.encode()}
    for name, value in fields.items():
        if isinstance(value, date | datetime):
            value = encode_value(value)
        if value is not None:
            sent[name] = wire_value(value)
    return Published(domain, sent, entry_id)


class State(Mapping[str, Mapping[str, str]]):
    """What is stored, as a mapping from key to the fields of its hash, and what else happened.

    Args:
        hashes: what is stored before the first event.

    Attributes:
        dead_letters: the events that became dead letters, in order.
    """

    def __init__(self, hashes: Mapping[str, Mapping[str, str]] | None = None) -> None:
        self._model = StateModel({key: dict(fields) for key, fields in (hashes or {}).items()})
        self._last_id = (FIRST_ENTRY_MS, 0)
        self._settled: set[tuple[str, str]] = set()
        self.dead_letters: list[DeadLettered] = []

    def __repr__(self) -> str:
        return f"<State {self._model.hashes!r} {len(self.dead_letters)} dead letters>"

    def __getitem__(self, key: str) -> Mapping[str, str]:
        return self._model.hashes[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._model.hashes)

    def __len__(self) -> int:
        return len(self._model.hashes)

    def entries(self, stream: str) -> list[dict[str, str]]:
        """Return the entries that were emitted to a stream, in order, as names to values."""
        return [dict(zip(flat[::2], flat[1::2], strict=True)) for flat in self._model.streams.get(stream, ())]

    def messages(self, channel: str) -> list[dict[str, Any]]:
        """Return the messages that were published on a channel, domain by domain, in order."""
        logs = sorted(stream for stream in self._model.streams if stream.startswith("outbox:"))
        return [
            msgspec.json.decode(entry["message"])
            for log in logs
            for entry in self.entries(log)
            if entry["channel"] == channel
        ]

    @property
    def presence(self) -> dict[str, str]:
        """Return each user's latest status, by the times of the events; nobody's time is up here."""
        latest: dict[str, tuple[int, str]] = {}
        for user_id, _, status, at in self._model.presence:
            if int(at) >= latest.get(user_id, (0, ""))[0]:
                latest[user_id] = int(at), status
        return {user_id: status for user_id, (_, status) in latest.items()}

    def ttl_s(self, key: str) -> float | None:
        """Return the time to live a key was given last, in seconds; None for one that stays."""
        ttl_ms = self._model.ttl_ms.get(key)
        return None if ttl_ms is None else ttl_ms / 1000

    def _next_id(self, published: Published) -> str:
        """Return an id behind all others, at or after the time the producer gave."""
        milliseconds, sequence = self._last_id
        time_ms = _time_ms(published)
        return f"{time_ms}-0" if time_ms > milliseconds else f"{milliseconds}-{sequence + 1}"

    def _deliver(self, entry: Entry) -> bool:
        """Note that an entry is delivered; return whether it is the first time."""
        self._last_id = max(self._last_id, parse_id(entry.id))
        if (entry.stream, entry.id) in self._settled:
            return False
        self._settled.add((entry.stream, entry.id))
        self._model.deliver(entry.stream, entry.id)
        return True


def apply(
    handler: EventHandler | Iterable[EventHandler],
    events: Iterable[Published],
    state: State | Mapping[str, Mapping[str, str]] | None = None,
    *,
    names: KeyNames | None = None,
) -> State:
    """Return the state after these events. May be called with or without a running event loop.

    An event whose entry id was settled before is a redelivery, and changes nothing.

    Args:
        handler: one, or several for different domains.
        state: what is stored before: an earlier result, which stays as it is, or plain hashes.
        names: the names of keys and streams, if they are not the default ones.

    Raises:
        ConfigurationError: an event of a domain that no handler is for.
        Exception: what a handler raises and the router would retry.
    """
    handlers = (handler,) if isinstance(handler, EventHandler) else handler
    after = deepcopy(state) if isinstance(state, State) else State(state)
    application = _Application(handlers, after, names or KeyNames())
    _complete(application.apply(list(events)))
    return after


class _Application(StateReader):
    """Applies events to a state, in the steps of the router: decode, handle, commit."""

    def __init__(self, handlers: Iterable[EventHandler], state: State, names: KeyNames) -> None:
        self._registry = HandlerRegistry()
        for handler in handlers:
            self._registry.register(handler)
        self._decoder = Decoder(self._registry)
        self._state = state
        self._names = names

    async def apply(self, events: Iterable[Published]) -> None:
        """Apply the events in order."""
        for published in events:
            if published.domain not in self._registry.domains:
                raise ConfigurationError(f"no handler is for domain {published.domain!r}")
            try:
                await self._settle(published)
            except InvalidEvent as error:
                self._dead_letter(published, error.reason, str(error))
            except Reject as error:
                self._dead_letter(published, "rejected", str(error))
            except (InvalidState, StateError) as error:
                self._dead_letter(published, "invalid", str(error))

    def touch(self, key: str) -> None:
        """Do nothing: events follow one another."""

    async def read(self, key: str, field: str) -> str | None:
        """Return what is stored. Raises InvalidState for a key that is no hash."""
        model = self._state._model
        kind = model.type_of(key)
        if kind not in ("hash", "none"):
            raise InvalidState(f"key {key!r} is a {kind}, not a hash")
        return model.hashes.get(key, {}).get(field)

    async def _settle(self, published: Published) -> None:
        state = self._state
        entry = self._entry(published)
        if not state._deliver(entry):
            return
        route, decoded = self._decoder.decode(published.domain, entry)
        unit = UnitOfWork()
        await route.call(decoded, StateTransaction(decoded, self._names, unit, self))
        unit.refuse_contradictions()
        answer = state._model.commit(Settlement(entry.stream, entry.id, unit, None, decoded.unique_id))
        if answer.verdict is Verdict.INVALID:
            self._dead_letter(published, "invalid", answer.reason)

    def _entry(self, published: Published) -> Entry:
        flat = [part for name, value in published.fields.items() for part in (name.encode(), value)]
        stream = self._names.stream(published.domain, "")
        return Entry(stream, published.entry_id or self._state._next_id(published), flat)

    def _dead_letter(self, published: Published, reason: str, error: str) -> None:
        self._state.dead_letters.append(DeadLettered(published, reason, error))


def _complete(work: Coroutine[Any, Any, None]) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
    else:  # a loop cannot be run inside another one
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, work).result()


def _time_ms(published: Published) -> int:
    """Return the time a producer gave, 0 for none and for what is no time."""
    sent = published.fields.get("timestamp")
    try:
        moment = msgspec.json.decode(published.fields["data"])["timestamp"] if sent is None else sent.decode()
        return parse_time(moment)
    except (KeyError, TypeError, ValueError, RecursionError, msgspec.MsgspecError):
        return 0
