"""From an entry to an event, or to the precise reason why it can never be one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from event_router.core.errors import InvalidEvent
from event_router.core.event import AnyEvent, Entry, Event
from event_router.core.handler import Route
from event_router.core.payloads import check_identifier
from event_router.core.registry import HandlerRegistry
from event_router.core.timestamps import DAY_MS, parse_time, shortened

MAX_FIELDS = 1_000
"""Fields an entry may have; more is no event but a mistake."""
TRACEPARENT_BYTES = 512


class Decoder:
    """Decodes the entries of registered domains.

    Args:
        registry: which event types exist, and their payloads.
        max_entry_bytes: names and values together; larger entries are `too_large`.
    """

    def __init__(self, registry: HandlerRegistry, *, max_entry_bytes: int = 1024 * 1024) -> None:
        self._registry = registry
        self._max_entry_bytes = max_entry_bytes
        self._by_bytes: dict[str, dict[bytes, Route]] = {}

    def decode(self, domain: str, entry: Entry) -> tuple[Route, AnyEvent]:
        """Return the event in an entry and the route it takes.

        Raises:
            InvalidEvent: it can never be one; has the dead-letter reason and names the field.
        """
        flat = entry.fields
        if sum(map(len, flat)) > self._max_entry_bytes:
            raise InvalidEvent(
                f"entry of {entry.size} bytes; at most {self._max_entry_bytes} (MAX_ENTRY_BYTES)", "too_large"
            )
        if len(flat) > 2 * MAX_FIELDS:
            raise InvalidEvent(f"entry of {len(flat) // 2} fields; at most {MAX_FIELDS}", "too_large")
        values = dict(zip(flat[::2], flat[1::2], strict=True))
        raw_data = values.get(b"data")
        extra = None if raw_data is None else _json_object(raw_data)
        route = self._route(domain, values, extra)
        time_ms = entry.time_ms
        if extra is not None or b"timestamp" in values:
            moment = _member(values, extra, "timestamp")
            if moment is not None:
                time_ms = _event_time(moment, time_ms)
        data = route.payload.convert(values, extra)
        event: AnyEvent = Event(
            id=entry.id,
            stream=entry.stream,
            domain=domain,
            type=route.type,
            key=route.payload.key(data),
            data=data,
            time_ms=time_ms,
            attempt=entry.deliveries,
        )
        if extra is not None or b"id" in values:
            producer_id = _member(values, extra, "id")
            if producer_id is not None:
                event.producer_id = check_identifier("id", producer_id)
        if extra is not None or b"traceparent" in values:
            trace = _member(values, extra, "traceparent")
            if isinstance(trace, str) and len(trace) <= TRACEPARENT_BYTES:
                event.traceparent = trace
        return route, event

    def label(self, domain: str, entry: Entry) -> str:
        """Return the event type for logs and metrics: `other` unless it is a registered one."""
        try:
            values = dict(zip(entry.fields[::2], entry.fields[1::2], strict=True))
            raw_data = values.get(b"data")
            extra = None if raw_data is None or b"type" in values else _json_object(raw_data)
            return self._route(domain, values, extra).type
        except InvalidEvent:
            return "other"

    def check(self, domain: str, fields: Mapping[str, object], *, now_ms: int) -> None:
        """Refuse what the router would dead-letter, before it is sent.

        Raises:
            InvalidEvent: the reason the entry would be dead-lettered for; names the field.
        """
        flat: list[bytes] = []
        for name, value in fields.items():
            flat += (name.encode("utf-8", "surrogateescape"), wire_value(value))
        self.decode(domain, Entry(f"events:{domain}", f"{now_ms}-0", flat))

    def _route(self, domain: str, values: dict[bytes, bytes], extra: dict[str, Any] | None) -> Route:
        raw = values.get(b"type")
        if raw is not None:
            routes = self._by_bytes.get(domain)
            if routes is None:
                names = self._registry.names(domain)
                routes = self._by_bytes[domain] = {name.encode(): names[name] for name in names}
            if raw in routes:
                return routes[raw]
        written = _member(values, extra, "type")
        if written is None:
            raise InvalidEvent("field 'type' is missing")
        if type(written) is not str or not written:
            raise InvalidEvent("field 'type' must be text that is not empty")
        route = self._registry.names(domain).get(written)
        if route is None:
            raise InvalidEvent(
                f"no handler takes type {shortened(written)} of domain {domain!r}", "unknown_type"
            )
        return route


def wire_value(value: object) -> bytes:
    """Return the bytes a field's value is sent as; objects and lists become JSON."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return msgspec.json.encode(value)


def _member(values: dict[bytes, bytes], extra: dict[str, Any] | None, name: str) -> Any:
    raw = values.get(name.encode())
    if raw is not None:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise InvalidEvent(f"field {name!r} is not UTF-8") from None
    return None if extra is None else extra.get(name)


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(raw)
    except RecursionError:
        raise InvalidEvent("field 'data' is JSON nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidEvent(f"field 'data' is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidEvent("field 'data' must be a JSON object")
    return found


def _event_time(value: object, entry_ms: int) -> int:
    try:
        time_ms = parse_time(value)
    except ValueError as error:
        raise InvalidEvent(f"field 'timestamp': {error}") from None
    if time_ms > entry_ms + DAY_MS:
        raise InvalidEvent("field 'timestamp' lies more than 24 hours after the entry was added")
    return time_ms
