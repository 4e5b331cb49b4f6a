"""From an entry to an event, or to the precise reason why it can never be one."""

from __future__ import annotations

from typing import Any

from event_router.core import cloudevents
from event_router.core.errors import InvalidEvent
from event_router.core.event import AnyEvent, Entry, Event
from event_router.core.handler import Route
from event_router.core.json_object import json_object
from event_router.core.payloads import check_identifier
from event_router.core.registry import HandlerRegistry
from event_router.core.timestamps import DAY_MS, parse_time, shortened

MAX_FIELDS = 1_000
"""Fields an entry may have; more is no event but a mistake."""
MAX_ENTRY_BYTES = 1024 * 1024
TRACEPARENT_BYTES = 512

_TIMESTAMP = "field 'timestamp'"
_TIME = "CloudEvents attribute 'time'"

Values = dict[bytes, bytes]
Members = dict[str, Any]


class Decoder:
    """Decodes the entries of registered domains.

    Args:
        registry: which event types exist, and their payloads.
        max_entry_bytes: names and values together; larger entries are `too_large`.
    """

    def __init__(self, registry: HandlerRegistry, *, max_entry_bytes: int = MAX_ENTRY_BYTES) -> None:
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
        values = _values(flat)
        if b"type" in values:
            raw_data = values.get(b"data")
            head = extra = None if raw_data is None else json_object("data", raw_data)
        else:
            values, head, extra = opened(values)
        route = self._route(domain, values, head)
        moment: Any = values.get(b"timestamp")
        time_ms = entry.time_ms
        if moment is not None and len(moment) == 13 and moment.isdigit():  # epoch milliseconds, as is usual
            time_ms = _not_ahead(int(moment), time_ms, _TIMESTAMP)
        elif head is not None or moment is not None:
            moment = _member(values, head, "timestamp")
            if moment is not None:
                time_ms = _event_time(moment, time_ms, _TIMESTAMP if head is extra else _TIME)
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
        if head is not None or b"id" in values:
            producer_id = _member(values, head, "id")
            if producer_id is not None:
                event.producer_id = check_identifier("id", producer_id)
        if head is not None or b"traceparent" in values:
            trace = _member(values, head, "traceparent")
            if isinstance(trace, str) and len(trace) <= TRACEPARENT_BYTES:
                event.traceparent = trace
        if head is not extra and head is not None:
            event.source = head["source"]
        return route, event

    def label(self, domain: str, entry: Entry) -> str:
        """Return the event type for logs and metrics: `other` unless it is a registered one."""
        try:
            values = _values(entry.fields)
            head: Members | None = None
            if b"type" not in values:
                values, head, _ = opened(values)
            return self._route(domain, values, head).type
        except InvalidEvent:
            return "other"

    def _route(self, domain: str, values: Values, head: Members | None) -> Route:
        raw = values.get(b"type")
        if raw is not None:
            routes = self._by_bytes.get(domain)
            if routes is None:
                names = self._registry.names(domain)
                routes = self._by_bytes[domain] = {name.encode(): names[name] for name in names}
            if raw in routes:
                return routes[raw]
        written = _member(values, head, "type")
        if written is None:
            if b"ce_type" in values:
                raise InvalidEvent("CloudEvents attribute 'specversion' is missing")
            raise InvalidEvent("field 'type' is missing")
        if type(written) is not str or not written:
            raise InvalidEvent("field 'type' must be text that is not empty")
        route = self._registry.names(domain).get(written)
        if route is None:
            raise InvalidEvent(
                f"no handler takes type {shortened(written)} of domain {domain!r}", "unknown_type"
            )
        return route


def opened(values: Values) -> tuple[Values, Members | None, Members | None]:
    """Return the fields that count, the head and the payload of an entry.

    Head and payload are the members of the JSON object in `data`, None without one; in a CloudEvent, which
    has no field `type`, they are two.

    Raises:
        InvalidEvent: `data` is no JSON object, or the CloudEvent is none; names what is wrong.
    """
    if b"type" not in values and cloudevents.is_marked(values):
        event = cloudevents.read_marked(values)
    else:
        raw = values.get(b"data")
        members = None if raw is None else json_object("data", raw)
        if members is None or b"type" in values or "specversion" not in members:
            return values, members, members
        event = cloudevents.read_structured(values, members)
    return event.beside, event.head, event.data


def _values(flat: list[bytes]) -> Values:
    # Half the time of a zip, whose keyword `strict` costs more than the rest (measured).
    return {flat[at]: flat[at + 1] for at in range(0, len(flat), 2)}


def _member(values: Values, head: Members | None, name: str) -> Any:
    raw = values.get(name.encode())
    if raw is not None:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise InvalidEvent(f"field {name!r} is not UTF-8") from None
    return None if head is None else head.get(name)


def _event_time(value: object, entry_ms: int, what: str) -> int:
    try:
        return _not_ahead(parse_time(value), entry_ms, what)
    except ValueError as error:
        raise InvalidEvent(f"{what}: {error}") from None


def _not_ahead(time_ms: int, entry_ms: int, what: str) -> int:
    if time_ms > entry_ms + DAY_MS:
        raise InvalidEvent(f"{what} lies more than 24 hours after the entry was added")
    return time_ms
